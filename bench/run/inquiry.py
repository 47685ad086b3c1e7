"""Joining the matrix and the examination: what the evidence asks for is run, and weighed again."""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from bench import registry
from bench.matrix.plan import WhyNot, plan_cell
from bench.matrix.schedule import by_scores
from bench.matrix.tasks import estimate
from bench.record.files import digest_of
from bench.record.schema import Cell, CellRecord
from bench.record.sweeps import checks, inferred_survivors
from bench.run.recording import latest, record_of
from bench.trust import Case, cases, escalate, evidence_of, pending, requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.matrix.fill import Filler
    from bench.matrix.plan import Planned
    from bench.record.schema import Place
    from bench.run.prepare import Prepared
    from bench.threat import Epsilon
    from bench.trust import Evidence

#: Of the examples that a sweep inferred to survive, the share that is attacked after all, each at
#: one epsilon, where gradients are faithful.
SAMPLE = 0.1


class Inferred(NamedTuple):
    """An example that a sweep inferred to survive an attack."""

    attack: str
    epsilon: str
    example: int


def _by_gradient(attack: str) -> bool:
    """Whether an attack goes by gradients alone, the model's own or others."""
    return not by_scores(registry.attacks.create(attack))


def faithful(evidence: Sequence[Evidence]) -> bool:
    """Whether gradients are there and tell how the model changes, all of it measured."""
    passed = {item.id for item in evidence if item.status == "pass"}
    return passed >= {"gradient-fidelity", "unavailable-gradients", "zero-margin-gradient"}


def sample(inferred: Sequence[Inferred], seed: int) -> list[Inferred]:
    """As many as a tenth of their examples, at least one; chosen by the seed alone."""
    count = math.ceil(SAMPLE * len({each.example for each in inferred}))
    return sorted(inferred, key=lambda each: digest_of([seed, *each]))[:count]


class Inquiry:
    """Examines the defenses of a run, asking for more cells where the evidence needs them.

    Each examined epsilon of a defense is a case of its own.

    It decides by the cells of its own command alone, so that the same command asks for the same
    cells again, whatever else the run's folder holds by then.
    """

    def __init__(self, prepared: Prepared, filler: Filler) -> None:
        self.prepared = prepared
        self.filler = filler
        self.contenders = {contender.name: contender for contender in prepared.contenders}
        self.records: list[CellRecord] = []

    def conduct(self, filled: list[CellRecord]) -> list[CellRecord]:
        """Measure, recheck what failed with a fresh seed, and escalate while it pays.

        A twin gets what the comparison of worst cases reads (`_compared`).

        Returns:
            The records of all cells, those of the inquiry included.
        """
        self.records = list(filled)
        menu = self.prepared.menu
        self._ask(c for case in self._cases() for c in _of(case, requests(case, menu)))
        self._recheck()
        self._check_sweep()
        if self.prepared.config.escalate:
            self._escalate()
        return self.records

    def _check_sweep(self) -> None:
        """Attack after all what the sweep inferred: a sample where gradients are faithful.

        Elsewhere all that was inferred of attacks that go by gradients; and where what was inferred
        of those, or of those that go by scores alone, turns out to be wrong, all of that kind.
        """
        names = list(dict.fromkeys(case.name for case in self._cases()))
        distrusted = {
            (case.name, True) for case in self._cases() if not faithful(evidence_of(case))
        }
        for repeat in (1, 2):
            planned = []
            for name in names:
                inferred = self._inferred(name)
                some = {e for e in inferred if (name, _by_gradient(e.attack)) in distrusted}
                if repeat == 1:
                    rest = [each for each in inferred if each not in some]
                    some |= set(sample(rest, self.prepared.setting.seed))
                planned += self._checks(name, sorted(some), repeat)
            if not planned:
                return
            self.records += self.filler.fill(planned)
            distrusted |= {
                (name, _by_gradient(result.cell.attack))
                for name in names
                for result in checks(self.filler.results[name])
                if result.hit.any()
            }

    def _inferred(self, name: str) -> list[Inferred]:
        found = inferred_survivors(self.filler.results[name], self.prepared.setting.norm.value)
        return [
            Inferred(*place, number) for place, some in sorted(found.items()) for number in some
        ]

    def _checks(self, name: str, inferred: list[Inferred], repeat: int) -> list[Planned]:
        chosen: dict[tuple[str, str], list[int]] = defaultdict(list)
        for each in inferred:
            chosen[each.attack, each.epsilon].append(each.example)
        return [
            self._planned(
                Cell(defense=name, attack=attack, epsilon=epsilon, scope="check", repeat=repeat),
                tuple(sorted(examples)),
            )
            for (attack, epsilon), examples in sorted(chosen.items())
        ]

    def _recheck(self) -> None:
        """Repeat with a fresh seed what failures were found by, until the verdict is settled."""
        tried: dict[str, set[Cell]] = defaultdict(set)
        while True:
            asked = []
            for case in self._cases():
                cells = pending(evidence_of(case), tried[case.name])
                tried[case.name].update(cells)
                asked += _of(case, cells)
            if not asked:
                return
            self._ask(asked)

    def _escalate(self) -> None:
        menu, budget = self.prepared.menu, self.prepared.escalation_budget
        spent: dict[tuple[str, Epsilon], float] = defaultdict(float)
        for number in range(1, len(menu.escalation) + 1):
            affordable = []
            for case in self._cases():
                for cell in _of(case, escalate(evidence_of(case), case, menu, number)):
                    cost, here = self._cost(cell, case), (case.name, case.headline)
                    if spent[here] + cost <= budget:
                        spent[here] += cost
                        affordable.append(cell)
                    else:
                        self._leave_out(cell, cost)
            if not affordable:
                return
            self._ask(affordable)
            self._recheck()

    def _leave_out(self, cell: Cell, cost: float) -> None:
        """Record a stronger attack that the budget does not allow."""
        why = WhyNot(
            "escalation-budget",
            f"escalation would need {cost:,.0f} passes beyond its budget of "
            f"{self.prepared.escalation_budget:,} (--escalation-budget)",
        )
        self.records.append(
            CellRecord(
                **cell.model_dump(), key="", status="skipped", cause=why.cause, reason=why.reason
            )
        )

    def _cases(self) -> list[Case]:
        """The defenses that were asked for, at every epsilon that is examined."""
        record = record_of(self.prepared, None, self.records, "running")
        found = cases(record, self.filler.read(record))
        return [
            case.at_epsilon(epsilon)
            for epsilon in self.prepared.examined
            for name, case in found.items()
            if not record.defenses[name].control and case.clean is not None
        ]

    def _cost(self, cell: Cell, case: Case) -> float:
        attack = registry.attacks.create(cell.attack)
        return estimate(attack, self.prepared.setting).total * case.robust

    def _ask(self, asked: Iterable[Cell]) -> None:
        """Fill these cells for each defense, and for its twin those that are compared."""
        together: dict[Place, Cell] = {}
        for cell in asked:
            twin = self.contenders[cell.defense].record.twin
            compared = twin in self.contenders and self._compared(cell)
            for name in [cell.defense, *([twin] if compared else [])]:
                own = cell.model_copy(update={"defense": name})
                together.setdefault(own.place, own)
        have = latest(self.records)
        planned = []
        for place, cell in together.items():
            known = have.get(place)
            if known is None:
                planned.append(self._planned(cell))
            elif known.inferred and known.scope == "all":
                # A row that the sweep left examples out of: evidence needs it whole, and the whole
                # one takes its place.
                planned.append(self._planned(cell.model_copy(update={"scope": "all"})))
        if planned:
            self.records += self.filler.fill(planned)

    def _compared(self, cell: Cell) -> bool:
        """Whether a cell can lower a worst case that is compared: an attack, where one examines.

        Measurements, and attacks that move in half of the box or all of it, tell of the defense.
        """
        epsilons = {epsilon.text for epsilon in self.prepared.examined}
        probes = registry.attacks.create(cell.attack).goes_by() == "probe"
        return cell.epsilon in epsilons and not probes

    def _planned(self, cell: Cell, chosen: tuple[int, ...] | None = None) -> Planned:
        attack = registry.attacks.create(cell.attack)
        contender = self.contenders[cell.defense]
        if chosen is None and attack.sample and cell.scope == "evidence":
            chosen = tuple(self.filler.right(cell.defense)[: attack.sample])
        return plan_cell(cell, contender, attack, self.prepared.setting, chosen)


def _of(case: Case, asked: Iterable[Cell]) -> list[Cell]:
    """Cells that evidence asked for, as those of its defense."""
    return [cell.model_copy(update={"defense": case.name}) for cell in asked]
