"""What trust looks at: all outcomes of one defense, and what its attacks go by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from bench import registry
from bench.errors import WinnowError
from bench.record.schema import EXTERNAL
from bench.registry.grammar import Written
from bench.threat import TOLERANCE, Epsilon, Norm

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

#: The name and epsilon of the predictions on unperturbed inputs.
CLEAN = ("clean", "0", 0)

Approach = Literal[
    "gradient", "smoothed", "surrogate", "transfer", "scores", "noise", "mixed", "probe"
]

#: They average gradients over points or draws, or hold attacks of several kinds.
_SPECIAL: dict[str, Approach] = {
    "averaged-pgd": "smoothed",
    "eot-pgd": "smoothed",
    "autoattack": "mixed",
    "clean": "probe",
}
#: Gradient attacks that lower the cross-entropy, which is flat where logits are large.
CROSS_ENTROPY = frozenset(
    {"fgsm", "pgd", "adam-pgd", "mi-fgsm", "sparse-l1-descent", "ddn", "apgd-ce"}
)
#: One gradient step.
SINGLE_STEP = frozenset({"fgsm"})
#: Gradient attacks that other attacks have to be measured against.
STRONG = frozenset({"apgd-ce", "apgd-dlr", "apgd-t", "margin-pgd", "fab-t"})
#: As researchers write them.
_SPOKEN = {
    "square": "Square",
    "fd-pgd": "Finite differences",
    "boundary": "Boundary",
    "hop-skip-jump": "HopSkipJump",
    "pgd": "PGD",
    "fgsm": "FGSM",
    "apgd-ce": "APGD-CE",
    "apgd-t": "APGD-T",
    "margin-pgd": "PGD on the margin",
    "uniform-noise": "Uniform noise",
    "gaussian-noise": "Gaussian noise",
    "surrogate": "The defense's own surrogates",
    "transfer": "Transfer",
}


def bare(attack: str) -> str:
    """An attack's name without its parameters."""
    return Written.parse(attack).name


def spoken(attack: str) -> str:
    """An attack's name in a sentence."""
    return _SPOKEN.get(bare(attack), attack)


def approach(attack: str) -> Approach:
    """What an attack goes by; `gradient` only where it is the model's own, at the point itself."""
    name = bare(attack)
    if name in _SPECIAL:
        return _SPECIAL[name]
    try:
        plugin = registry.attacks.get(name)
    except WinnowError:
        return "mixed"
    if plugin.scope == "evidence":
        return "probe"
    if plugin.needs == "surrogates":
        return "surrogate"
    if plugin.needs == "source":
        return "transfer"
    if plugin.access == "noise":
        return "noise"
    return "scores" if plugin.access == "black-box" else "gradient"


def parameters(attack: str) -> dict[str, bool | int | float | str]:
    """Every parameter of an attack by its name, defaults included; empty where it is unknown."""
    try:
        return registry.attacks.create(attack).parameters
    except WinnowError:
        return {}


def where(frame: pd.DataFrame, chosen: pd.Series) -> set[int]:
    """The examples of the rows for which `chosen` holds."""
    return set(frame["index"].to_numpy()[chosen.to_numpy(dtype=bool)].tolist())


def hits(frame: pd.DataFrame) -> set[int]:
    """The examples that a cell attacked and broke: clean errors do not count."""
    return where(frame, frame["attacked"] & frame["broken"])


def attacked(frame: pd.DataFrame) -> set[int]:
    """The examples that a cell attacked."""
    return where(frame, frame["attacked"])


def marked(frame: pd.DataFrame, column: str) -> set[int]:
    """The attacked examples at which an extra column is above 0."""
    name = f"extra_{column}"
    if name not in frame:
        return set()
    return where(frame, frame["attacked"] & (frame[name] > 0))


@dataclass(frozen=True, eq=False)
class Case:
    """All outcomes of one defense in one norm, those of its twin, and what went wrong."""

    name: str
    norm: Norm
    n: int
    classes: int
    headline: Epsilon
    epsilons: tuple[Epsilon, ...]
    """Those of the run, ascending."""
    cells: dict[tuple[str, str, int], pd.DataFrame]
    """By attack (canonical), epsilon (as written) and repeat: finished cells, n rows each; the
    clean predictions at `CLEAN`."""
    further: list[pd.DataFrame] = field(default_factory=list)
    """Outcomes that count in the worst case alone: of cells that left out what follows from
    another epsilon, and of those that check such inferences."""
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    """Attack, epsilon and reason of each cell that failed."""
    twin: Case | None = None
    flags: dict[str, list[str]] = field(default_factory=dict)
    """What attacks said in words, such as AutoAttack's warnings."""
    rounds: tuple[int, ...] = ()
    """How many examples each round of escalation broke."""
    shape: tuple[int, int, int] | None = None
    """(C, H, W) of one input; needed to know what is unbounded in L2 and L1."""

    def at(
        self, epsilon: Epsilon, repeat: int = 0, approaches: Iterable[Approach] | None = None
    ) -> dict[str, pd.DataFrame]:
        """Cells at an epsilon by attack, probes and clean predictions left out."""
        wanted = set(approaches) if approaches is not None else None
        found = {}
        for (attack, written, number), frame in self.cells.items():
            if attack == CLEAN[0] or number != repeat or Epsilon.parse(written) != epsilon:
                continue
            way = approach(attack)
            if way != "probe" and (wanted is None or way in wanted):
                found[attack] = frame
        return found

    def here(self, attack: str, repeat: int = 0) -> pd.DataFrame | None:
        """A cell at the headline epsilon."""
        return self.cells.get((attack, self.headline.text, repeat))

    def probe(self, name: str, repeat: int = 0) -> pd.DataFrame | None:
        """The cell of a probe at the headline epsilon, whatever its parameters."""
        for (attack, epsilon, number), frame in self.cells.items():
            if bare(attack) == name and number == repeat and epsilon == self.headline.text:
                return frame
        return None

    @property
    def clean_errors(self) -> set[int]:
        """What is wrong unperturbed."""
        frame = self.cells.get(CLEAN)
        if frame is None:
            return set()
        return where(frame, frame["broken"])

    def broken_at(self, epsilon: Epsilon, *, imported: bool = True) -> set[int]:
        """The worst case: clean errors, and every example broken at this norm or a smaller one.

        Args:
            epsilon: the norm.
            imported: whether adversarial examples from elsewhere count.
        """
        column = f"distance_{self.norm.value.lower()}"
        broken = self.clean_errors
        for (attack, *_), frame in self.cells.items():
            if attack.startswith(EXTERNAL) and not imported:
                continue
            if attack != CLEAN[0] and approach(attack) != "probe":
                broken |= where(frame, _near(frame, column, epsilon))
        for frame in self.further:
            broken |= where(frame, _near(frame, column, epsilon))
        return broken

    @property
    def imported(self) -> set[int]:
        """What adversarial examples from elsewhere alone break at the headline epsilon."""
        return self.broken_at(self.headline) - self.broken_at(self.headline, imported=False)

    @property
    def robust(self) -> int:
        """How many examples nothing broke at the headline epsilon."""
        return self.n - len(self.broken_at(self.headline))

    @property
    def at_chance(self) -> bool:
        """Whether the worst case is no better than guessing: such a figure claims nothing."""
        return self.robust * self.classes <= self.n

    @property
    def unbounded(self) -> Epsilon | None:
        """The smallest epsilon whose ball holds the whole box; None where it is unknown."""
        return whole_box(self.norm, self.shape)

    @property
    def flat_cross_entropy(self) -> set[int]:
        """The examples at which the cross-entropy has no gradient though the margin has one."""
        frame = self.probe("probe-gradients")
        if frame is None:
            return set()
        return marked(frame, "zero_ce_gradient") - marked(frame, "zero_margin_gradient")


def _near(frame: pd.DataFrame, column: str, epsilon: Epsilon) -> pd.Series:
    """Which rows are broken within an epsilon, by the distance in a column."""
    return frame["broken"] & (frame[column] <= float(epsilon) + TOLERANCE)


def whole_box(norm: Norm, shape: tuple[int, int, int] | None) -> Epsilon | None:
    """The smallest round epsilon whose ball around any input holds the whole box."""
    if norm is Norm.LINF:
        return Epsilon.parse("1")
    if shape is None:
        return None
    size = math.prod(shape)
    return Epsilon.parse(str(math.ceil(math.sqrt(size)) if norm is Norm.L2 else size))
