"""Joining the matrix and the examination: what the evidence asks for is run, and weighed again."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.matrix.plan import Cell, plan_cell
from bench.matrix.tasks import estimate
from bench.record.files import digest_of
from bench.record.results import checks, inferred_survivors
from bench.record.schema import CellRecord
from bench.run.recording import cases, record_of
from bench.threat import Epsilon
from bench.trust import (
    Case,
    Request,
    escalate,
    evidence_of,
    pending,
    requests,
)
from bench.trust.case import CLEAN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.matrix.fill import Filler
    from bench.run.prepare import Prepared
    from bench.trust import Evidence

#: Rounds of escalation, at most.
ROUNDS = 3


#: Of the examples that a sweep inferred to survive, the share that is attacked after all, each at
#: one epsilon, where gradients are faithful.
SAMPLE = 0.1


#: Attack, epsilon as written, and example.
Pair = tuple[str, str, int]


def faithful(evidence: Sequence[Evidence]) -> bool:
    """Whether gradients are there and tell how the model changes, all of it measured."""
    passed = {item.id for item in evidence if item.status == "pass"}
    return passed >= {"gradient-fidelity", "unavailable-gradients", "zero-margin-gradient"}


def sample(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    """As many pairs as a tenth of their examples, at least one; chosen by the seed alone."""
    count = math.ceil(SAMPLE * len({example for *_, example in pairs}))
    return sorted(pairs, key=lambda pair: digest_of([seed, *pair]))[:count]


class Inquiry:
    """Examines the defenses of a run, asking for more cells where the evidence needs them.

    It decides by the cells of its own command alone, so that the same command asks for the same
    cells again, whatever else the run's folder holds by then.
    """

    def __init__(self, prepared: Prepared, filler: Filler) -> None:
        self.prepared = prepared
        self.filler = filler
        self.records: list[CellRecord] = []

    def conduct(self, filled: list[CellRecord]) -> list[CellRecord]:
        """Measure, recheck what failed with a fresh seed, and escalate while it pays.

        A twin gets every cell that its defense gets.

        Returns:
            The records of all cells, those of the inquiry included.
        """
        self.records = list(filled)
        self._ask({name: requests(case) for name, case in self._cases().items()})
        self._recheck()
        self._check_sweep()
        if self.prepared.config.escalate:
            self._escalate()
        return self.records

    def _check_sweep(self) -> None:
        """Attack after all what the sweep inferred: a sample where gradients are faithful.

        Elsewhere, and where the sample differs from what was inferred, everything.
        """
        distrusted = {n for n, case in self._cases().items() if not faithful(evidence_of(case))}
        for repeat in (1, 2):
            cells = []
            for name in self._cases():
                pairs = self._inferred(name)
                if name not in distrusted:
                    pairs = sample(pairs, self.prepared.setting.seed) if repeat == 1 else []
                cells += self._checks(name, pairs, repeat)
            if not cells:
                return
            self.records += self.filler.fill(cells)
            distrusted |= {
                name
                for name, results in self.filler.results.items()
                if any((r.frame["attacked"] & r.frame["broken"]).any() for r in checks(results))
            }

    def _inferred(self, name: str) -> list[Pair]:
        found = inferred_survivors(self.filler.results[name], self.prepared.setting.norm.value)
        return [(*place, example) for place, some in sorted(found.items()) for example in some]

    def _checks(self, name: str, pairs: list[Pair], repeat: int) -> list[Cell]:
        (target,) = [c.target for c in self.prepared.contenders if c.target.name == name]
        chosen: dict[tuple[str, str], list[int]] = defaultdict(list)
        for attack, epsilon, example in pairs:
            chosen[attack, epsilon].append(example)
        return [
            plan_cell(
                target,
                registry.attacks.create(attack),
                Epsilon.parse(epsilon),
                self.prepared.setting,
                scope="check",
                repeat=repeat,
                chosen=sorted(examples),
            )
            for (attack, epsilon), examples in sorted(chosen.items())
        ]

    def _recheck(self) -> None:
        """Repeat with a fresh seed what a failure was found by."""
        self._ask({name: pending(evidence_of(case)) for name, case in self._cases().items()})

    def _escalate(self) -> None:
        spent: dict[str, float] = {}
        for number in range(1, ROUNDS + 1):
            wanted = {}
            for name, case in self._cases().items():
                stronger = escalate(evidence_of(case), case, number)
                affordable = []
                for request in stronger:
                    cost = self._cost(request, case)
                    if spent.get(name, 0.0) + cost <= self.prepared.escalation_budget:
                        spent[name] = spent.get(name, 0.0) + cost
                        affordable.append(request)
                    else:
                        self._leave_out(name, request, number, cost)
                if affordable:
                    wanted[name] = affordable
            if not wanted:
                return
            self._ask(wanted, number)
            self._recheck()

    def _leave_out(self, name: str, request: Request, number: int, cost: float) -> None:
        """Record a stronger attack that the budget does not allow."""
        self.records.append(
            CellRecord(
                defense=name,
                attack=request.attack,
                epsilon=request.epsilon,
                key="",
                scope=request.scope,
                round=number,
                status="skipped",
                reason=f"escalation would need {cost:,.0f} passes beyond its budget of "
                f"{self.prepared.escalation_budget:,} (--escalation-budget)",
            )
        )

    def _cases(self) -> dict[str, Case]:
        """The cases of the defenses that were asked for."""
        record = record_of(self.prepared, None, self.records, "running")
        record = record.model_copy(update={"headline": self.prepared.headline.text})
        found = cases(record, self.filler.read(record))
        return {
            name: case
            for name, case in found.items()
            if not record.defenses[name].control and CLEAN in case.cells
        }

    def _cost(self, request: Request, case: Case) -> float:
        attack = registry.attacks.create(request.attack)
        return estimate(attack, self.prepared.setting).total * case.robust

    def _ask(self, wanted: dict[str, list[Request]], number: int = 0) -> None:
        """Fill the cells of some trust, for each defense and its twin."""
        known = {c.target.name: c for c in self.prepared.contenders}
        together: dict[tuple[str, str, str, int], Cell] = {}
        for name, asked in wanted.items():
            twin = known[name].record.twin
            for contender in [known[name], *([known[twin]] if twin in known else [])]:
                for request in asked:
                    cell = self._cell(contender.target, request, number)
                    place = (contender.target.name, request.attack, request.epsilon, request.repeat)
                    together.setdefault(place, cell)
        have = {(r.defense, r.attack, r.epsilon): r for r in self.records}
        cells = []
        for cell in together.values():
            known_as = have.get((cell.target.name, cell.attack_name, cell.epsilon.text))
            if known_as is None:
                cells.append(cell)
            elif known_as.source == "inferred" and known_as.scope == "all":
                # A row that the sweep left examples out of: evidence needs it whole.
                self.records.remove(known_as)
                cells.append(replace(cell, scope="all"))
        if cells:
            self.records += self.filler.fill(cells)

    def _cell(self, target: Any, request: Request, number: int) -> Cell:
        return plan_cell(
            target,
            registry.attacks.create(request.attack),
            Epsilon.parse(request.epsilon),
            self.prepared.setting,
            scope=request.scope,
            round=number,
            repeat=request.repeat,
        )
