"""A stored run's tasks, rebuilt from its record as the run built them.

A cell that cannot be computed again here is named with its reason. What a cell left out has to be
accounted for by the others: a shard that comes out the same proves nothing of the examples that a
forger took out of it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import registry
from bench.data import open_dataset
from bench.errors import UsageError
from bench.matrix.plan import Planned, WhyNot, start_of, why_not
from bench.matrix.tasks import Clean, Task, tasks_for
from bench.matrix.work import Bench
from bench.models.contenders import Contender, Lineup
from bench.record.provenance import Surroundings
from bench.record.results import CellResult, broken_within, critical_distances, read_cells
from bench.record.schema import CLEAN
from bench.run.evaluation import contender_of
from bench.run.verification.claims import attack_of, setting_of_record
from bench.run.verification.findings import listed
from bench.run.verification.sources import factory_model
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

    from bench.api import Examples
    from bench.record.outcomes import Outcomes
    from bench.record.schema import Cell, RunRecord
    from bench.record.store import RunStore

#: Why a cell proves nothing that left out what others are said to have survived.
RESTS = "what it left out rests on cells that cannot be computed again"
#: Why a cell cannot be computed again whose key does not follow from what is here.
OTHER = (
    "its key does not follow from what is here: another version of its attack, of the defense or "
    "of a library, other weights, or another choice of examples"
)


@dataclass(frozen=True)
class Source:
    """Where the data and models of a stored run are now, and where to compute."""

    device: str
    """Of this machine: `cpu` or `cuda:0`."""
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    """Weights by defense, where they are not found by themselves."""
    dataset: str = ""
    """Where the data are, when not where the run found them."""
    model: str = ""
    """`FILE:FACTORY` of a program's own model: only whoever verifies names what is executed."""

    def examples(self, store: RunStore, record: RunRecord) -> Examples:
        """Those of a run.

        Raises:
            UsageError: they are not found.
        """
        written = self.dataset or record.dataset.written
        if not written:
            return store.read_examples(record.dataset)
        return open_dataset(written).choose("test", record.dataset.n)

    def contenders(self, record: RunRecord, examples: Examples) -> list[Contender]:
        """The defenses of a run, controls included, and what its transfer attacks start from.

        Raises:
            UsageError: a defense, its weights or a program's own model is not found.
        """
        if not record.dataset.written:
            return [contender_of(name, factory_model(self.model, name)) for name in record.defenses]
        where, norm = self.dataset or record.dataset.written, Norm(record.norm)
        asked = []
        for name in record.defenses:
            given = {key: path for key, path in self.checkpoints.items() if key == name}
            # What executes a file is named by whoever verifies, never by the record alone.
            executes = registry.defenses.create(name).executes
            written = f"file:{self.model}" if executes else name
            (contender,) = Lineup(where, examples, given, norm).asked([written])
            asked.append(dataclasses.replace(contender, name=name))
        lineup = Lineup(where, examples, self.checkpoints, norm)
        return lineup.with_controls(asked, _starts(record), twins=False)


class LeftOut(NamedTuple):
    """A cell that cannot be computed again."""

    cell: str
    """As people call it."""
    shards: int
    """That are stored of it."""
    reason: str


@dataclass(frozen=True)
class Rebuilt:
    """One computation of a run, and what is stored of it."""

    task: Task
    stored: tuple[Outcomes, ...]
    """One per cell of the task."""
    surroundings: Surroundings
    """Where it was computed, as far as the run noted that."""

    @property
    def shards(self) -> list[tuple[str, int]]:
        """(cell key, number) of those that it fills."""
        return [(key, self.task.shard.number) for key, _ in self.task.cells]


class Rebuilder:
    """Rebuilds the tasks of a stored run.

    Args:
        store: the run's folder.
        record: its `run.json`.
        source: where its data and models are now.

    Raises:
        UsageError: the data or the weights are not found, or the cells cannot be read.
    """

    def __init__(self, store: RunStore, record: RunRecord, source: Source) -> None:
        self.store, self.record, self.source = store, record, source
        self.examples = source.examples(store, record)
        self.results = read_cells(store, record)
        self.setting = dataclasses.replace(
            setting_of_record(record), n=len(self.examples), data_digest=self.examples.digest
        )
        self.clean = {
            name: Clean.of(result.frame)
            for name, results in self.results.items()
            for result in results
            if result.cell.attack == CLEAN
        }
        self.contenders = {c.name: c for c in source.contenders(record, self.examples)}
        self.left_out: list[LeftOut] = []
        """What `tasks` could not rebuild."""
        self.faults: dict[str, list[str]] = defaultdict(list)
        """By cell key, what of its choice of examples does not follow from the other cells."""
        self._unproven: set[str] = set()
        """The keys of cells of which at least a shard was left out."""

    def bench(self, batch_size: int | None) -> Bench:
        """What does the tasks."""
        return Bench(self.examples, self.contenders, self.source.device, batch_size)

    def tasks(self) -> list[Rebuilt]:
        """Every computation whose outcomes are stored and that can be done again here."""
        shards = {
            result.cell.key: list(self.store.shards(result.cell.key))
            for results in self.results.values()
            for result in results
        }
        rebuilt = []
        for group, numbers in self._groups(shards):
            # Where a shard ends follows from what was asked, of which only a part may be left.
            cut, *others = ([shard.block for shard in shards[each.key]] for each in group)
            if any(other != cut for other in others):
                for each in group:
                    why = "its shards are not those of what it was computed with"
                    self._leave_out(each.cell, each.key, len(numbers), why)
                continue
            for task in tasks_for(group, self.setting, clean=self.clean, blocks=cut):
                if task.shard.number in numbers:
                    stored = tuple(shards[key][task.shard.number] for key, _ in task.cells)
                    rebuilt.append(Rebuilt(task, stored, self._surroundings(stored)))
        return self._resting_on_proof(rebuilt)

    def _resting_on_proof(self, rebuilt: list[Rebuilt]) -> list[Rebuilt]:
        """Those whose omissions rest on nothing that was left out, nor on what rests on that.

        A shard that attacked little comes out the same, whatever was made up elsewhere.
        """
        results = {r.cell.key: r for r in itertools.chain.from_iterable(self.results.values())}
        gone = rebuilt if self._unproven else []
        while gone:
            resting = {
                key
                for key in {key for each in rebuilt for key, _ in each.shards}
                if self._left(results[key], self._unproven) > self._left(results[key])
            }
            gone = [each for each in rebuilt if resting & {key for key, _ in each.shards}]
            for key, count in Counter(key for each in gone for key, _ in each.shards).items():
                self._leave_out(results[key].cell, key, count, RESTS)
            rebuilt = [each for each in rebuilt if not resting & {key for key, _ in each.shards}]
        return rebuilt

    def _groups(
        self, shards: Mapping[str, Sequence[Outcomes]]
    ) -> list[tuple[list[Planned], set[int]]]:
        """Cells that were computed together, and the numbers of the shards that were.

        A run that was killed or extended may have computed shards of one cell beside others.
        """
        beside: dict[tuple[Any, ...], list[Planned]] = defaultdict(list)
        for result in itertools.chain.from_iterable(self.results.values()):
            cell, stored = result.cell, shards[result.cell.key]
            planned = self._planned(result, self._surroundings(stored))
            if planned.why_not is not None:
                self._leave_out(cell, cell.key, len(stored), planned.why_not.reason)
                continue
            self.faults[cell.key] += self._unaccounted(result)
            for number, shard in enumerate(stored):
                with_it = shard.computed.epsilons if shard.computed else planned.chosen
                # A run that was extended has checked one epsilon more than once, each time alone.
                alone = cell.key if shard.computed and len(with_it or ()) == 1 else ""
                place = cell.defense, cell.label, cell.scope, alone, with_it, number
                beside[place].append(planned)
        groups: dict[tuple[str, ...], tuple[list[Planned], set[int]]] = {}
        for (*_, with_it, number), group in beside.items():
            computed = shards[group[0].key][number].computed
            if computed and sorted(str(each.epsilon.exact) for each in group) != sorted(with_it):
                for each in group:
                    why = "what it was computed with is not all here"
                    self._leave_out(each.cell, each.key, 1, why)
                continue
            keys = tuple(each.key for each in group)
            groups.setdefault(keys, (group, set()))[1].add(number)
        return list(groups.values())

    def _leave_out(self, cell: Cell, key: str, shards: int, reason: str) -> None:
        self._unproven.add(key)
        self.left_out.append(LeftOut(_named(cell), shards, reason))

    def _surroundings(self, stored: Sequence[Outcomes]) -> Surroundings:
        """Where shards were computed; older ones do not say, and the run says where it ended."""
        noted = [outcomes.surroundings for outcomes in stored if outcomes.surroundings]
        return noted[0] if noted else Surroundings.noted(self.record.provenance)

    def _planned(self, result: CellResult, then: Surroundings) -> Planned:
        """A cell as the run planned it."""
        cell = result.cell
        contender = self.contenders[cell.defense]
        setting = dataclasses.replace(self.setting, versions=then.versions)
        planned = Planned(cell, contender, None, key=cell.key)
        if setting.judging != self.record.judging:
            return _refused(planned, f"it was judged by other rules ({self.record.judging})")
        if cell.attack == CLEAN:
            followed = planned.keyed(setting).key
            return planned if cell.key == followed else _refused(planned, OTHER)
        try:
            attack = registry.attacks.create(cell.attack)
        except UsageError as error:
            return _refused(planned, f"its attack is not here: {error}")
        frame = result.frame
        chosen = tuple(frame["index"][frame["attacked"]].tolist())
        planned = dataclasses.replace(planned, attack=attack, chosen=chosen)
        if cell.defense not in self.clean:
            return _refused(planned, "there are no predictions on unperturbed examples")
        if why := why_not(contender, attack, setting):
            return _refused(planned, why.reason)
        beside = result.beside(self.results[cell.defense])
        if beside is not None:
            asked = beside[str(result.epsilon.exact)]
            swept = dataclasses.replace(planned, chosen=asked, beside=beside)
            if cell.key == swept.keyed(setting, asked).key:
                return swept
        keys = {planned.keyed(setting).key, planned.keyed(setting, chosen).key}
        return planned if cell.key in keys else _refused(planned, OTHER)

    def _unaccounted(self, result: CellResult) -> list[str]:
        """What of the examples that a cell attacked does not follow from the others."""
        cell = result.cell
        if cell.attack == CLEAN:
            return []
        attacked = set(result.frame["index"][result.frame["attacked"]].tolist())
        faults = []
        if wrong := attacked - set(self.clean[cell.defense].right):
            some = listed(sorted(wrong))
            faults.append(f"attacked example(s) {some}, which it gets wrong unperturbed")
        if left := self._left(result):
            some = listed(sorted(left))
            faults.append(f"left out example(s) {some} without a reason among the other cells")
        return [f"{_named(cell)}: {fault}" for fault in faults]

    def _left(self, result: CellResult, but: Collection[str] = ()) -> set[int]:
        """What a cell did not attack, and nothing among the others says why.

        A row attacks all that the defense gets right; a measurement so many as it declares; what
        goes over epsilons or over what others left skips only what was broken within its epsilon,
        or survived the same attack at a larger one.

        Args:
            result: the cell's; what did not finish says nothing by what it left.
            but: the keys of cells whose word does not count: of what they broke, there are the
                adversarial examples, which do.
        """
        cell = result.cell
        attack = None if cell.attack == CLEAN else attack_of(self.record, cell.attack)
        if attack is None or attack.needs == "candidates" or cell.scope == "check":
            return set()
        if not result.finished:
            return set()
        wanted = self.clean[cell.defense].right
        if cell.scope == "evidence" and attack.sample:
            wanted = wanted[: attack.sample]
        left = set(wanted) - set(result.frame["index"][result.frame["attacked"]].tolist())
        if left and (cell.scope == "remaining" or cell.inferred):
            left -= self._skipped(result, but)
        return left

    def _skipped(self, result: CellResult, but: Collection[str]) -> set[int]:
        """The examples that a cell may have left out, because of what other cells found."""
        import numpy as np

        cell = result.cell
        others = [r for r in self.results[cell.defense] if r.cell.place != cell.place]
        own = [r for r in others if (r.cell.label, r.cell.scope) == (cell.label, cell.scope)]
        own = [r for r in own if r.cell.key not in but]
        counted = others if cell.scope == "remaining" else own
        skipped = np.zeros(len(self.examples), dtype=bool)
        if counted:
            skipped |= broken_within(critical_distances(counted, self.record.norm), result.epsilon)
        for above in own:
            if above.whole and float(above.epsilon) > float(result.epsilon):
                skipped |= above.survived
        return set(np.flatnonzero(skipped).tolist())


def _refused(planned: Planned, reason: str) -> Planned:
    return dataclasses.replace(planned, why_not=WhyNot("not-here", reason))


def _named(cell: Cell) -> str:
    return f"{cell.defense} × {cell.label} @ {cell.epsilon}"


def _starts(record: RunRecord) -> list[str]:
    """What the transfer attacks of a run start from besides twins."""
    found: dict[str, None] = {}
    for name in sorted({cell.attack for cell in record.cells if cell.status == "ok"} - {CLEAN}):
        with contextlib.suppress(UsageError):  # told of each cell
            attack = registry.attacks.create(name)
            if attack.needs == "source" and start_of(attack) != "twin":
                found[start_of(attack)] = None
    return list(found)
