"""Filling cells: what is stored is kept, the rest is computed, judged and stored shard by shard."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from bench.errors import ModelError
from bench.matrix import schedule
from bench.matrix.plan import WhyNot
from bench.matrix.schedule import Budget
from bench.matrix.tasks import Clean, planned_cost, tasks_for
from bench.record.results import CellResult, broken_within, critical_distances
from bench.record.schema import Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np

    from bench.api import Cost
    from bench.matrix.execute import InProcess, Pool
    from bench.matrix.plan import Planned, Setting
    from bench.matrix.tasks import Task
    from bench.matrix.work import TaskResult
    from bench.record.schema import CellRecord, RunRecord, Sweep
    from bench.record.store import RunStore
    from bench.threat import Epsilon


class Observer(Protocol):
    """Is told how the work goes; the command line shows it."""

    def begin(self, tasks: Sequence[Task], ahead: Cost) -> None:
        """A phase of tasks was planned.

        Args:
            tasks: those that are not stored.
            ahead: what the phases take that wait for this one, at most.
        """

    def busy(self, tasks: Sequence[Task]) -> None:
        """These tasks are being worked on."""

    def done(self, result: TaskResult, robust: float | None) -> None:
        """A task ended; `robust` is its defense's worst case so far at the headline epsilon.

        None where what is stored is computed again.
        """


class Silent:
    """An observer that says nothing."""

    def begin(self, tasks: Sequence[Task], ahead: Cost) -> None:
        """Say nothing."""

    def busy(self, tasks: Sequence[Task]) -> None:
        """Say nothing."""

    def done(self, result: TaskResult, robust: float | None) -> None:
        """Say nothing."""


class Filler:
    """Fills cells of one run.

    Phases follow from what needs what: the clean predictions first, because clean errors are not
    attacked; then every cell of scope `all`; then those of scope `remaining`. Where the sweep
    brackets, each of the latter two takes its epsilons one after another (`bench.matrix.schedule`).
    """

    def __init__(
        self,
        setting: Setting,
        headline: Epsilon,
        store: RunStore,
        executor: InProcess | Pool,
        observer: Observer,
        limit: int | None = None,
    ) -> None:
        self.budget = Budget(limit)
        self.setting = setting
        self.headline = headline
        self.store = store
        self.executor = executor
        self.observer = observer
        self.results: dict[str, list[CellResult]] = defaultdict(list)
        """The finished cells of each defense, as far as they were filled here."""
        self._clean: dict[str, Clean] = {}
        self._critical: dict[str, np.ndarray] = {}
        self._defense_keys: dict[str, str] = {}

    def fill(self, planned: Sequence[Planned], sweep: Sweep = "each") -> list[CellRecord]:
        """Fill these cells and say what became of each.

        Args:
            planned: the cells.
            sweep: how to go over their epsilons.

        Raises:
            ModelError: the one defense asked for does not answer the clean inputs with finite
                logits (N, classes).
            StoreError: a shard cannot be written or read.
        """
        self._defense_keys |= {each.contender.name: each.contender.key for each in planned}
        records = [each.record("skipped", each.why_not) for each in planned if each.why_not]
        runnable = [each for each in planned if each.why_not is None]
        clean = self._clean_phase(
            [each for each in runnable if each.attack is None], self._at_most(runnable)
        )
        records += clean
        reasons = {record.defense: record.reason for record in clean}
        attacking = []
        for each in [each for each in runnable if each.attack is not None]:
            if each.cell.defense in self._clean:
                attacking.append(each)
            else:
                why = reasons.get(each.cell.defense, "they failed")
                no_clean = WhyNot("no-clean", f"no clean predictions: {why}")
                records.append(each.record("failed", no_clean))
        everywhere = [each for each in attacking if each.cell.scope != "remaining"]
        remaining = [each for each in attacking if each.cell.scope == "remaining"]
        groups = schedule.rows(everywhere, self.headline, sweep)
        groups += schedule.leftovers(remaining, sweep)
        while groups:
            group, *groups = groups
            ahead = self._at_most([each for later in groups for each in later])
            records += self._attack_phase(group, sweep, ahead)
        return records

    @property
    def known(self) -> list[CellResult]:
        """All finished cells that were filled here."""
        return [result for results in self.results.values() for result in results]

    def read(self, record: RunRecord) -> dict[str, list[CellResult]]:
        """The finished cells of a run by defense; what was read here before is not read again."""
        known = {result.cell.key: result for result in self.known}
        return {
            name: [
                known.get(cell.key) or self._read(cell)
                for cell in record.cells
                if cell.defense == name and cell.status == "ok"
            ]
            for name in record.defenses
        }

    def right(self, defense: str) -> list[int]:
        """The examples that a defense gets right, as far as it was asked here; none where not."""
        return self._clean[defense].right if defense in self._clean else []

    def _at_most(self, planned: Sequence[Planned]) -> Cost:
        """What of these cells is not stored takes, at most."""
        missing = [
            each
            for each in planned
            if not each.key or not self._stored(each.key, self.right(each.cell.defense))
        ]
        return planned_cost(missing, self.setting)

    def _clean_phase(self, planned: list[Planned], ahead: Cost) -> list[CellRecord]:
        records = self._phase(planned, ahead)
        for record in records:
            if record.status != "ok":
                continue
            name = record.defense
            (result,) = self.results[name]
            self._clean[name] = Clean.of(result.frame)
            self._critical[name] = critical_distances([result], self.setting.norm)
            self.executor.learn(name, result.totals)
            self._learn(name, self.store.smallest(self._defense_keys[name]).distances())
        return records

    def _attack_phase(self, planned: list[Planned], sweep: Sweep, ahead: Cost) -> list[CellRecord]:
        """Cells that do not wait for one another, each with the examples that it attacks."""
        chooser = schedule.Chooser(self.setting, sweep, self.headline, self._stored)
        chosen = [
            chooser.choose(each, self._clean[each.cell.defense], self.results[each.cell.defense])
            for each in planned
        ]
        return self._phase(chooser.together(chosen, self._clean), ahead)

    def _phase(self, planned: list[Planned], ahead: Cost) -> list[CellRecord]:
        tasks = tasks_for(planned, self.setting, clean=self._clean)
        self._forget_other_cuts(tasks)
        self.observer.begin(self._missing(tasks), ahead)
        errors: dict[str, WhyNot] = {}
        while admitted := self.budget.admit(tasks):
            taken = set(map(id, admitted))
            tasks = [task for task in tasks if id(task) not in taken]
            for result in self._results(admitted):
                for key, _ in result.task.cells:
                    if result.error:
                        errors.setdefault(key, WhyNot(result.cause, result.error))
        unfinished = {key for task in tasks for key, _ in task.cells}
        records = []
        for each in planned:
            if each.key in errors:
                records.append(each.record("failed", errors[each.key]))
            elif each.key in unfinished:
                records.append(each.record("incomplete", self.budget.why))
            else:
                finished = self._finished(each)
                records.append(finished.cell)
                self.results[each.cell.defense].append(finished)
        return records

    def _forget_other_cuts(self, tasks: list[Task]) -> None:
        """Cells that an interrupted run left cut into other shards begin anew."""
        blocks: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
        for task in tasks:
            for key, _ in task.cells:
                blocks[key][task.shard.number] = task.shard.start, task.shard.stop
        for key, own in blocks.items():
            self.store.forget_other_cut(key, own, self.setting.n)

    def _finished(self, planned: Planned) -> CellResult:
        """A cell that was filled."""
        result = self._read(planned.record("ok"))
        if planned.beside is None:
            return result
        # Its attack went over epsilons by itself: whether it left anything out is known only now.
        attacked = set(result.table["index"][result.table["attacked"]].tolist())
        inferred = not attacked.issuperset(planned.chosen or ())
        return replace(result, cell=result.cell.model_copy(update={"inferred": inferred}))

    def _stored(self, key: str, attacked: Sequence[int]) -> bool:
        """Whether every shard of a cell that attacks these examples is."""
        shards = self.setting.shards(attacked)
        return all(self.store.has(key, shard) for shard in range(len(shards)))

    def _missing(self, tasks: Sequence[Task]) -> list[Task]:
        """What of these tasks is not stored yet."""
        parts = [task.missing(self.store.has) for task in tasks]
        return [part for part in parts if part.cells]

    def _results(self, tasks: list[Task]) -> Iterator[TaskResult]:
        """Do what is missing of these tasks; the budget is charged for what is stored, too."""
        if self.budget.limit is not None:
            for task in tasks:
                for key, _ in task.cells:
                    if self.store.has(key, task.shard.number):
                        self.budget.charge(self.store.get(key, task.shard.number).totals)
        for result in self.executor.run(self._missing(tasks), self.observer.busy):
            if result.fatal:
                raise ModelError(f"{result.task.cell.defense}: {result.error}")
            self._keep(result)
            self.observer.done(result, self._robust(result.task.cell.defense))
            for outcomes in result.outcomes:
                self.budget.charge(outcomes.totals)
            yield result

    def _keep(self, result: TaskResult) -> None:
        """Store a result: adversarial examples first, so that no outcome is without its proof."""
        task = result.task
        name, number, start, stop = task.cell.defense, *task.shard
        if result.error:
            text = f"{task.label}, examples {start} to {stop - 1}, seed {task.seed}\n"
            self.store.write_text(
                f"errors/{task.cells[0][0]}-{number:04d}.txt",
                f"{text}{result.error}\n{result.detail}",
            )
            return
        if not task.is_clean:
            self.store.smallest(self._defense_keys[name]).add(result.found)
        for (key, epsilon), outcomes in zip(task.cells, result.outcomes, strict=True):
            outcomes.place = Place(name, task.cell.attack, epsilon.text, task.cell.repeat)
            self.store.put(key, number, outcomes)
        self._learn(name, {item.example: item.distance for item in result.found})

    def _learn(self, name: str, found: Mapping[int, float]) -> None:
        """Lower what is known of a defense's critical distances."""
        critical = self._critical.get(name)
        if critical is not None:
            for example, distance in found.items():
                critical[example] = min(critical[example], distance)

    def _robust(self, name: str) -> float:
        critical = self._critical.get(name)
        if critical is None:
            return 1.0
        return float(1 - broken_within(critical, self.headline).mean())

    def _read(self, record: CellRecord) -> CellResult:
        return CellResult.read(self.store, record, self.setting.n)
