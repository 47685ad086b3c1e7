"""`Attack`: a search for adversarial examples; what it is asked, what it proposes, its cost."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from bench.api.plugins import Plugin
from bench.errors import AttackError
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor, nn

Approach = Literal[
    "gradient",
    "smoothed",
    "surrogate",
    "transfer",
    "scores",
    "noise",
    "mixed",
    "probe",
    "imported",
]
Loss = Literal["cross-entropy", "margin", "other"]
Strength = Literal["single-step", "ordinary", "strong"]
#: What a descent may tell of its path, one value an example (Pintor et al., NeurIPS 2022): some
#: iterate was adversarial and the last was not; the loss was still falling at the end; the share
#: of steps on which it rose; there was no gradient at the input.
TRACES = ("silent_success", "incomplete", "worsened", "zero_gradient")
#: Of what a probe measures, the columns that say whether an attack found a planted adversarial
#: example begin so, and end with the attack's canonical name; NaN where none was planted.
PLANTED = "planted:"


class Flag(NamedTuple):
    """What a reader of the table should know of an attack's run."""

    id: str
    """For code: lower-case words joined by hyphens; empty where nothing but people reads it."""
    sentence: str

    @classmethod
    def of(cls, said: Flag | str) -> Flag:
        """A flag; of a sentence alone, one that nothing but people reads."""
        return said if isinstance(said, Flag) else cls("", str(said))


@dataclass(frozen=True)
class Cost:
    """An upper estimate of the passes that one example costs: for plans, progress and budgets."""

    forwards: float
    backwards: float = 0.0

    def __mul__(self, times: float) -> Cost:
        return Cost(self.forwards * times, self.backwards * times)

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.forwards + other.forwards, self.backwards + other.backwards)

    @property
    def total(self) -> float:
        """Passes, forwards and backwards together."""
        return self.forwards + self.backwards


#: The fields of a problem that have a value for each of its rows.
_OF_ROWS = ("inputs", "labels", "candidates", "epsilons", "examples")


@dataclass(frozen=True, eq=False)
class Problem:
    """What an attack is asked to break."""

    model: nn.Module
    """Float32 inputs (N, C, H, W) to float32 logits (N, classes); frozen, in eval mode. It counts
    its passes, splits large batches by itself, and raises on logits that are not finite."""
    inputs: Tensor
    """Float32 in [0, 1], contiguous, (N, C, H, W), N at least 1; the model gets every one right."""
    labels: Tensor
    """Int64, (N,)."""
    norm: Norm
    """The norm of the threat model."""
    epsilon: float | None
    """The radius of all rows; None for a minimum-norm attack, which searches the smallest
    perturbation, and where each row has its own."""
    classes: int
    """The number of logits."""
    seed: int
    """Of this shard. torch, numpy and random are already seeded with it, and are put back
    afterwards; it is for libraries that seed themselves."""
    surrogates: dict[str, nn.Module] = field(default_factory=dict)
    """What the defense declares for its backward pass (`Defense.surrogates`), weights loaded, by
    name; passes count as the model's own. Empty unless the attack `needs` or takes them."""
    randomised: bool = False
    """Whether the model answers differently when it is asked again: no one answer then settles
    that an example is broken."""
    source: nn.Module | None = None
    """Another defense's model for a transfer attack, or None."""
    candidates: Tensor | None = None
    """What a file holds for these examples, shape of the inputs; None unless the attack `needs`
    candidates."""
    epsilons: Tensor | None = None
    """The radius of each row, float64 (N,), for an attack with `each_row`; `radii` has them always.
    An example that is attacked at several epsilons is as many rows."""
    examples: Tensor | None = None
    """Which example of the run each row is, int64 (N,); None where no two rows are of one."""
    bracket: bool = False
    """Whether what survives one epsilon may be taken to survive the smaller ones: the run counts
    that as inferred, and checks it."""

    def of_its_own(self) -> Problem:
        """With tensors that may be changed, whoever else has these."""
        copies = {name: getattr(self, name) for name in _OF_ROWS}
        return replace(self, **{k: v.clone() for k, v in copies.items() if v is not None})

    def part(self, rows: Tensor, **changes: Any) -> Problem:
        """The same of some rows, int64 (M,); changed in these fields."""
        every = {name: getattr(self, name) for name in _OF_ROWS}
        some = {name: value[rows] for name, value in every.items() if value is not None}
        return replace(self, **some | changes)


@dataclass(frozen=True, eq=False)
class Candidates:
    """Inputs that somebody claims to be adversarial, for some examples of a run."""

    digest: str
    """SHA-256 of the file they are from, which their cells' keys hold."""
    index: tuple[int, ...]
    """The examples they belong to, ascending."""
    inputs: np.ndarray
    """Float32, (N, C, H, W)."""

    def of(self, examples: Sequence[int]) -> np.ndarray:
        """Those of these examples, all of them covered."""
        places = {example: place for place, example in enumerate(self.index)}
        found: np.ndarray = self.inputs[[places[example] for example in examples]]
        return found


@dataclass(frozen=True, eq=False)
class Proposal:
    """What an attack found. The judge decides what it is worth."""

    candidates: Tensor
    """Shape of the inputs. Where nothing was found anything may stand; best is the input."""
    flags: tuple[Flag | str, ...] = ()
    """What a reader of the table should know, a short sentence each; with an identifier (`Flag`)
    where code has to know it, too."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Per-example arrays of length N, kept beside the outcomes (such as passes used)."""
    attacked: Tensor | None = None
    """Bool (N,): False for the rows that were left out, since the example survived at a larger
    epsilon (`Problem.bracket`). None where all were attacked."""


class Attack(Plugin):
    """A search for adversarial examples.

    One instance serves many shards; it keeps no state between calls of `run`. An attack whose
    result depends on its batch (most do: they draw random numbers for all of it) need not worry,
    because shards are fixed by the plan.
    """

    kind: ClassVar[Literal["fixed", "minimum"]] = "fixed"
    """`fixed`: searches within epsilon, run once for each. `minimum`: searches the smallest
    perturbation, run once for all epsilons, and read in the threat model's norm."""
    each_row: bool = False
    """Of a `fixed` attack, whether it takes rows of several epsilons at once (`Problem.epsilons`).
    What it finds for a row then follows from the row alone: neither from the others nor from their
    order or number. Otherwise it is run once for each epsilon."""
    norms: ClassVar[frozenset[Norm]] = frozenset(Norm)
    """The norms it searches in. A minimum-norm attack can be read in another as well."""
    access: ClassVar[Literal["white-box", "black-box", "noise"]] = "white-box"
    """What it uses: gradients, outputs, or nothing but chance."""
    scope: ClassVar[Literal["all", "remaining", "evidence"]] = "all"
    """`remaining`: runs last, only on what no other attack of the run broke, and adds to the worst
    case without being a row. `evidence`: measures the defense instead of attacking it, in columns
    of `Proposal.extra`; neither a row nor part of the worst case."""
    needs: ClassVar[Literal["nothing", "surrogates", "source", "candidates"]] = "nothing"
    """`surrogates`: runs only where the defense declares some. `source`: gets the model of the
    defense that its parameter `source` names (`twin`: the defense's own). `candidates`: gets those
    that a file holds (`import-adversarial`)."""
    takes_surrogates: ClassVar[bool] = False
    """Whether it gets the surrogates of a defense that declares some, without needing any."""
    libraries: tuple[str, ...] = ()
    """Distributions whose version can change its outcomes."""

    # What an examination has to know of it; all optional, and recorded with each run.

    approach: ClassVar[Approach | Literal[""]] = ""
    """What it goes by. Where empty it follows from `scope`, `needs` and `access`: `gradient` is the
    model's own, at the point itself; `smoothed`, gradients averaged over points or draws."""
    lowers: ClassVar[Loss] = "other"
    """The loss that it lowers: a cross-entropy is flat where logits are large."""
    strength: ClassVar[Strength] = "ordinary"
    """`single-step`: one gradient step. `strong`: other attacks have to be measured against it."""
    over_draws: ClassVar[bool] = False
    """Whether it takes the expectation over a randomised model's draws. Suite `all` leaves it out,
    and an examination runs it where the model is randomised."""
    traces: ClassVar[tuple[str, ...]] = ()
    """The columns that it keeps in `Proposal.extra` and an examination reads: of a descent those of
    `bench.api.TRACES`, of an attack of scope `evidence` what it measures."""
    deterministic: ClassVar[bool] = False
    """Whether it draws no random numbers, so that on a model that draws none another seed finds the
    same, and an examination does not repeat it."""
    challenge: ClassVar[str] = ""
    """An identifier, where what it breaks beyond white-box attacks is a test of its own."""
    figure: ClassVar[str] = ""
    """The published evaluation whose figure it gives where it attacked all: `autoattack`."""
    spoken: ClassVar[str] = ""
    """What a sentence calls it, such as `Finite differences`; its name where empty."""
    examination: ClassVar[tuple[str, ...]] = ()
    """Options of itself that an examination runs at the headline epsilon: `("", "steps=80")` is
    itself as it is, and with `[steps=80]`."""
    sample: ClassVar[int] = 0
    """How many examples are enough where an examination runs it; 0 for all."""
    planted: ClassVar[tuple[str, ...]] = ()
    """Options of itself with which it searches planted adversarial examples in an examination: of
    an attack that ends where it converged, at a small cost. They are searched as two classes."""
    stand_in: ClassVar[str] = ""
    """Options that make it cheaper, for an examination of what it was not run on whole."""
    free: ClassVar[bool] = False
    """Whether an examination may let it move in the whole box, where it has to break everything."""
    escalation: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Options of itself for each round of escalation, on what nothing broke; some may be empty."""

    def goes_by(self) -> Approach:
        """Its approach, declared or as it follows from the other attributes."""
        if self.approach:
            return self.approach
        if self.scope == "evidence":
            return "probe"
        by_need: dict[str, Approach] = {
            "surrogates": "surrogate",
            "source": "transfer",
            "candidates": "imported",
        }
        by_access: dict[str, Approach] = {"noise": "noise", "black-box": "scores"}
        return by_need.get(self.needs) or by_access.get(self.access, "gradient")

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """The reason why it cannot run here, or None. Called before anything is attacked."""
        if self.kind == "fixed" and norm not in self.norms:
            return f"searches in {' and '.join(sorted(self.norms))} only"
        return None

    def depends(self) -> dict[str, int]:
        """Other attacks that it runs, by canonical name, and their versions: part of its key."""
        return {}

    @abstractmethod
    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Passes per example of one computation when nothing is broken early."""

    @abstractmethod
    def run(self, problem: Problem) -> Proposal:
        """Search. May raise: the cell is then recorded as failed with the reason."""


def radius(problem: Problem) -> float:
    """The epsilon that a fixed-epsilon attack has to have.

    Raises:
        AttackError: the problem has none.
    """
    if problem.epsilon is None:
        raise AttackError("a fixed-epsilon attack needs an epsilon (got None)")
    return problem.epsilon


def radii(problem: Problem) -> Tensor:
    """The epsilon of each row, float64 (N,), on the device of the inputs.

    Raises:
        AttackError: the problem has none.
    """
    if problem.epsilons is not None:
        return problem.epsilons
    labels = problem.labels
    return labels.double().new_full(labels.shape, radius(problem))


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Logit of the label minus the best other logit: negative where the model is wrong.

    Unlike the cross-entropy it neither saturates nor loses its gradient when logits are large.

    Args:
        logits: (N, classes), at least two classes; gradients flow through.
        labels: int64, (N,).

    Returns:
        (N,), dtype of the logits.
    """
    own = logits.gather(1, labels[:, None]).squeeze(1)
    others = logits.scatter(1, labels[:, None], float("-inf")).amax(dim=1)
    return own - others


def surely_finite(values: Tensor) -> bool:
    """False where a value is not finite, or where their sum is too large to tell: one reduction.

    On a GPU the host waits for it.
    """
    if values.requires_grad:
        values = values.detach()
    return math.isfinite(values.sum().item())
