"""What trust looks at: all outcomes of one defense, and what its attacks declared."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.record.results import correct_within, is_randomised
from bench.record.schema import CLEAN, AttackRecord, CellRecord, Place
from bench.threat import TOLERANCE, Epsilon, Norm
from bench.trust.evidence import worthwhile

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np

    from bench.api.attacks import Approach
    from bench.record.results import CellResult, Table
    from bench.record.schema import RunRecord

#: From so many classes on, a figure at chance is low enough to end with.
FEW_CLASSES = 5
#: Of an attack that no record tells of.
UNKNOWN = AttackRecord()


def where(table: Table, chosen: np.ndarray) -> set[int]:
    """The examples of the rows for which `chosen` holds."""
    return set(table["index"][chosen].tolist())


def hits(table: Table) -> set[int]:
    """The examples that a cell attacked and broke: clean errors do not count."""
    return where(table, table["attacked"] & table["broken"])


def attacked(table: Table) -> set[int]:
    """The examples that a cell attacked."""
    return where(table, table["attacked"])


def marked(table: Table, column: str, above: float = 0) -> set[int]:
    """The attacked examples at which an extra column is above 0, or another number."""
    name = f"extra_{column}"
    if name not in table:
        return set()
    return where(table, table["attacked"] & (table[name] > above))


def values(table: Table, column: str) -> np.ndarray:
    """What an extra column says of the attacked examples, NaN left out; float64, (K,)."""
    found = table[f"extra_{column}"][table["attacked"]].astype(float)
    told: np.ndarray = found[found == found]
    return told


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
    results: Sequence[CellResult]
    """Its finished cells, n rows each."""
    attacks: Mapping[str, AttackRecord] = field(default_factory=dict)
    """What attacks declared, by canonical name: all that ran, and all that evidence may ask for."""
    failures: Sequence[CellRecord] = ()
    """The cells that failed."""
    twin: Case | None = None
    shape: tuple[int, int, int] | None = None
    """(C, H, W) of one input; needed to know what is unbounded in L2 and L1."""

    @classmethod
    def of(cls, record: RunRecord, name: str, results: Sequence[CellResult]) -> Case:
        """The case of one defense of a run, its twin left out."""
        return cls(
            name=name,
            norm=Norm(record.norm),
            n=record.dataset.n,
            classes=len(record.dataset.class_names),
            headline=Epsilon.parse(record.headline),
            epsilons=tuple(map(Epsilon.parse, record.epsilons)),
            results=results,
            attacks=record.attacks,
            failures=[c for c in record.cells if c.defense == name and c.status == "failed"],
            shape=record.dataset.shape,
        )

    @functools.cached_property
    def tables(self) -> dict[Place, Table]:
        """The outcomes of cells that evidence may compare.

        Left out are those without what follows from another epsilon, those that check such
        inferences, and those that did not finish: they count in the worst case alone.
        """
        return {r.cell.place: r.table for r in self.results if r.finished and not _partial(r.cell)}

    def table(self, attack: str, epsilon: str, repeat: int = 0) -> Table | None:
        """The outcomes of a cell, if it has any."""
        return self.tables.get(Place(self.name, attack, epsilon, repeat))

    @property
    def clean(self) -> Table | None:
        """The outcomes of the unperturbed examples."""
        return self.table(CLEAN, "0")

    def declared(self, attack: str) -> AttackRecord:
        """What an attack declared."""
        return self.attacks.get(attack, UNKNOWN)

    def approach(self, attack: str) -> Approach:
        """What an attack goes by; `gradient` is the model's own, at the point itself."""
        return "probe" if attack == CLEAN else self.declared(attack).approach

    def spoken(self, attack: str) -> str:
        """An attack's name in a sentence."""
        return self.declared(attack).spoken or attack

    def at(
        self, epsilon: Epsilon, repeat: int = 0, approaches: Iterable[Approach] | None = None
    ) -> dict[str, Table]:
        """Cells at an epsilon by attack, probes and clean predictions left out."""
        here = self._of_attacks.get((epsilon, repeat), {})
        if approaches is None:
            return dict(here)
        wanted = set(approaches)
        return {attack: t for attack, t in here.items() if self.approach(attack) in wanted}

    @functools.cached_property
    def _of_attacks(self) -> dict[tuple[Epsilon, int], dict[str, Table]]:
        """Cells by epsilon and repeat, and by attack."""
        found: dict[tuple[Epsilon, int], dict[str, Table]] = defaultdict(dict)
        for place, table in self.tables.items():
            if self.approach(place.attack) != "probe":
                found[Epsilon.parse(place.epsilon), place.repeat][place.attack] = table
        return dict(found)

    def here(self, attack: str, repeat: int = 0) -> Table | None:
        """A cell at the headline epsilon."""
        return self.table(attack, self.headline.text, repeat)

    def measured(self, column: str, repeat: int = 0) -> tuple[str, Table] | None:
        """The probe that measures a column at the headline epsilon, and its cell."""
        for place, table in self.tables.items():
            here = (place.epsilon, place.repeat) == (self.headline.text, repeat)
            probes = self.approach(place.attack) == "probe"
            if here and probes and column in self.declared(place.attack).traces:
                return place.attack, table
        return None

    def whole(self, table: Table) -> bool:
        """Whether a cell attacked every example that the model gets right."""
        return len(attacked(table)) == self.n - len(self.clean_errors)

    @functools.cached_property
    def clean_errors(self) -> set[int]:
        """What is wrong unperturbed."""
        return set() if self.clean is None else where(self.clean, self.clean["broken"])

    def broken_at(self, epsilon: Epsilon, *, imported: bool = True) -> set[int]:
        """The worst case: clean errors, and every example broken at this norm or a smaller one.

        Args:
            epsilon: the norm.
            imported: whether adversarial examples from elsewhere count.
        """
        column = f"distance_{self.norm.value.lower()}"
        broken = set(self.clean_errors)
        for result in self.results:
            way, table = self.approach(result.cell.attack), result.table
            if way != "probe" and (imported or way != "imported"):
                near = table["broken"] & (table[column] <= float(epsilon) + TOLERANCE)
                broken |= where(table, near)
        return broken

    @property
    def imported(self) -> set[int]:
        """What adversarial examples from elsewhere alone break at the headline epsilon."""
        return self.broken_at(self.headline) - self.broken_at(self.headline, imported=False)

    @property
    def rounds(self) -> tuple[int, ...]:
        """How many examples each round of escalation broke at the headline epsilon."""
        broken: dict[int, set[int]] = defaultdict(set)
        for result in self.results:
            if result.cell.round and result.epsilon == self.headline:
                broken[result.cell.round] |= where(result.table, result.table["broken"])
        return tuple(len(broken[number] - self.clean_errors) for number in sorted(broken))

    @property
    def rising(self) -> bool:
        """Whether the last round of escalation still paid: no bottom is reached."""
        return bool(self.rounds) and worthwhile(self.rounds[-1], self.n)

    @property
    def robust(self) -> int:
        """How many examples nothing broke at the headline epsilon."""
        return self.n - len(self.broken_at(self.headline))

    @functools.cached_property
    def randomised(self) -> bool:
        """Whether the judge had to ask more than once."""
        return is_randomised(self.results)

    @functools.cached_property
    def shown(self) -> float:
        """How many survive as tables say it: of a randomised defense, their mean over its draws."""
        return float(self.right.sum()) if self.randomised else self.robust

    @functools.cached_property
    def right(self) -> np.ndarray:
        """The fraction of draws in which each example is right at its worst; float64, (n,)."""
        return correct_within(self.results, self.norm.value, self.headline)

    def at_epsilon(self, epsilon: Epsilon) -> Case:
        """The same outcomes, and the twin's, to be looked at by another epsilon of the run."""
        twin = None if self.twin is None else self.twin.at_epsilon(epsilon)
        return replace(self, headline=epsilon, twin=twin)

    @property
    def few_classes(self) -> bool:
        """Whether a figure at chance may be far above the bottom, so that it asks for evidence."""
        return self.classes < FEW_CLASSES

    @property
    def at_chance(self) -> bool:
        """Whether the worst case is no better than guessing: such a figure claims nothing."""
        return self.shown * self.classes <= self.n + 1e-9  # a sum of fractions

    @property
    def unbounded(self) -> Epsilon | None:
        """The smallest epsilon whose ball holds the whole box; None where it is unknown."""
        return whole_box(self.norm, self.shape)

    @property
    def flat_cross_entropy(self) -> set[int]:
        """The examples at which the cross-entropy has no gradient though the margin has one."""
        found = self.measured("zero_ce_gradient")
        if found is None:
            return set()
        return marked(found[1], "zero_ce_gradient") - marked(found[1], "zero_margin_gradient")


def cases(record: RunRecord, results: Mapping[str, Sequence[CellResult]]) -> dict[str, Case]:
    """What the examination has to know of each defense of a run, its twin's included."""
    alone = {name: Case.of(record, name, results[name]) for name in record.defenses}
    return {
        name: replace(case, twin=alone.get(record.defenses[name].twin or ""))
        for name, case in alone.items()
    }


def _partial(cell: CellRecord) -> bool:
    """Whether a cell left out what follows from elsewhere, or checks that."""
    return cell.scope == "check" or (cell.scope == "all" and cell.inferred)


def whole_box(norm: Norm, shape: tuple[int, int, int] | None) -> Epsilon | None:
    """The smallest round epsilon whose ball around any input holds the whole box."""
    if norm is Norm.LINF:
        return Epsilon.parse("1")
    if shape is None:
        return None
    size = math.prod(shape)
    return Epsilon.parse(str(math.ceil(math.sqrt(size)) if norm is Norm.L2 else size))
