"""A share of a stored run, computed again from its seeds and compared outcome by outcome.

What a forger made up does not come out again: rows, passes and measurements, of which the files
alone prove nothing, are proven by sampling. Seconds never are.

A minimum-norm attack's shard brings those of its other epsilons along. What the shards that were
drawn tell is hypergeometric: if t of R were forged, k of them hold none with probability
C(R - t, k) / C(R, k).
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api import Cost
from bench.matrix.execute import InProcess, Pool
from bench.matrix.fill import Silent
from bench.matrix.local import LocalHands
from bench.record.provenance import Surroundings
from bench.record.statistics import fewest_found
from bench.record.store import open_run
from bench.run.agreement import Drift, differences, place
from bench.run.rebuild import LeftOut, Rebuilder
from bench.run.sampling import draw

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.matrix.fill import Observer
    from bench.matrix.tasks import Task
    from bench.matrix.work import TaskResult
    from bench.record.outcomes import Outcomes
    from bench.run.rebuild import Rebuilt, Source
    from bench.run.sampling import Sampling
    from bench.run.verification import Findings


@dataclass(frozen=True)
class Recomputed:
    """What came of computing a share of a stored run again."""

    seed: int
    """By which the shards were drawn."""
    stored: int
    """Shards of finished cells."""
    drawn: int
    """Uniformly, and computed again: the statement rests on these."""
    computed: int
    """Shards in all: those, one for each defense, and those of other epsilons beside them."""
    exact: int
    """Of them, compared to the last digit: computed on this device, with these versions."""
    unsteady: int
    """Of the others, those that do not come out the same twice on this machine."""
    differences: tuple[str, ...]
    """What is not as it was stored, a sentence each."""
    searches: int
    """Computations that served several epsilons: how often each was made and charged, nothing
    says."""
    left_out: tuple[LeftOut, ...]
    """Cells, or single shards, that cannot be computed again, and why."""
    seconds: float
    """That it took."""

    @property
    def unproven(self) -> int:
        """Shards that cannot be computed again here."""
        return sum(item.shards for item in self.left_out)

    @property
    def found(self) -> int | None:
        """So many forged shards, or more, would have been found with 95 %; None: no number.

        A forger may have chosen the shards that cannot be computed again.
        """
        among = fewest_found(self.stored - self.unproven, self.drawn)
        return None if among is None else among + self.unproven

    @property
    def whole(self) -> bool:
        """Whether every outcome of the run was computed again, and came out the same."""
        return self.exact == self.stored and not self.differences

    @property
    def text(self) -> str:
        """In a sentence."""
        if not self.drawn:
            return "no shard was computed again"
        agree = "equal" if self.exact == self.computed else self._agreeing()
        beside = self.computed - self.drawn
        further = f" ({beside} more beside them)" if beside else ""
        told = (
            f"{self.drawn} of {self.stored} shards computed again from their seeds{further}: "
            f"{'NOT as stored' if self.differences else agree}; {self._bound()}"
        )
        if self.searches:
            told += "; passes of a search over several epsilons up to how often it was made"
        return f"{told} (--recompute-seed {self.seed}, {self.seconds:.1f} s)"

    def _agreeing(self) -> str:
        elsewhere = self.computed - self.exact - self.unsteady
        why = [
            f"{count} {reason}"
            for count, reason in (
                (elsewhere, "not known to be of this processor or GPU and these versions"),
                (self.unsteady, "that do not come out the same twice"),
            )
            if count
        ]
        return f"{self.exact} equal, the others within margins and chance ({', '.join(why)})"

    def _bound(self) -> str:
        if self.found is None:
            return "too few to say how many forged ones would have been found"
        beyond = "" if self.exact == self.computed else " beyond those margins"
        if self.found == 1:
            return f"a single one forged{beyond} would have been found"
        return (
            f"a forger of {self.found} of them or more ({100 * self.found / self.stored:.1f} %)"
            f"{beyond} would have been found with 95 %"
        )

    def add_to(self, findings: Findings) -> None:
        """Put what differs, and what could not be computed again, beside what the files showed."""
        findings.faults += self.differences
        findings.notes += [
            f"not computed again: {cell} ({shards} shard(s)): {reason}"
            for cell, shards, reason in self.left_out
        ]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            **vars(self),
            "differences": list(self.differences),
            "left_out": [item._asdict() for item in self.left_out],
            "found_with_95_percent": self.found,
        }


def recompute(
    folder: Path, sampling: Sampling, source: Source, observer: Observer | None = None
) -> Recomputed:
    """Compute a share of a run's shards again, and compare; how is said in `bench.run.agreement`.

    Args:
        folder: of the run.
        sampling: how much, and which.
        source: where data and models are now, and the device.
        observer: is told how the work goes.

    Raises:
        UsageError: there is no run, or its data or weights cannot be found.
        StoreError: its cells cannot be read.
    """
    store, record = open_run(folder)
    return _Recomputation(Rebuilder(store, record, source), sampling, observer or Silent()).run()


class _Recomputation:
    """One check, while it goes on."""

    def __init__(self, rebuilder: Rebuilder, sampling: Sampling, observer: Observer) -> None:
        self.rebuilder, self.sampling, self.observer = rebuilder, sampling, observer
        self.here = Surroundings.of(rebuilder.source.device)
        self.faults: list[str] = []
        self.left_out: list[LeftOut] = []
        self.drift = Drift()
        self.exact = self.unsteady = 0
        self._forged: set[str] = set()
        """Defenses of which something surely differs: what differs as well is not tried twice."""

    def run(self) -> Recomputed:
        started = time.monotonic()
        rebuilt = self.rebuilder.tasks()
        self.left_out += self.rebuilder.left_out
        by_shard = {shard: each for each in rebuilt for shard in each.shards}
        stored = len(by_shard) + sum(item.shards for item in self.left_out)
        drawn, further = draw(self._shards(rebuilt), self.sampling, stored)
        chosen = {id(by_shard[shard]): by_shard[shard] for shard in (*drawn, *further)}
        self.faults += self._choices(list(chosen.values()))
        computed: set[tuple[str, int]] = set()
        for each, result in self._results(list(chosen.values())):
            computed |= set(each.shards if self._compare(each, result) else ())
        return Recomputed(
            seed=self.sampling.seed,
            stored=stored,
            drawn=len(computed & set(drawn)),
            computed=len(computed),
            exact=self.exact,
            unsteady=self.unsteady,
            differences=tuple(dict.fromkeys([*self.faults, *self.drift.faults()])),
            searches=sum(len(each.task.cells) > 1 for each in chosen.values()),
            left_out=tuple(self.left_out),
            seconds=time.monotonic() - started,
        )

    def _shards(self, rebuilt: Sequence[Rebuilt]) -> dict[tuple[str, int], str]:
        """The defense of each shard that can be computed again."""
        return {shard: each.task.cell.defense for each in rebuilt for shard in each.shards}

    def _choices(self, chosen: Sequence[Rebuilt]) -> list[str]:
        """What of the examples that these cells attacked does not follow from other cells."""
        keys = dict.fromkeys(key for each in chosen for key, _ in each.shards)
        return [fault for key in keys for fault in self.rebuilder.faults[key]]

    def _results(self, chosen: Sequence[Rebuilt]) -> Iterator[tuple[Rebuilt, TaskResult]]:
        """Do these, each with the forward passes that it was done with."""
        self.observer.begin([each.task for each in chosen], Cost(0))
        by_place = {_place(each.task): each for each in chosen}
        for size in dict.fromkeys(each.surroundings.batch_size for each in chosen):
            tasks = [each.task for each in chosen if each.surroundings.batch_size == size]
            with contextlib.closing(self._executor(size)) as executor:
                for result in executor.run(tasks, self.observer.busy):
                    yield by_place[_place(result.task)], result
                    self.observer.done(result, None)

    def _executor(self, batch_size: int | None) -> InProcess | Pool:
        bench, count = self.rebuilder.bench(batch_size), self.sampling.workers
        alone = count == 1 or not self.rebuilder.record.dataset.written
        return InProcess(bench) if alone else Pool(LocalHands(bench, [bench.device] * count))

    def _compare(self, each: Rebuilt, result: TaskResult) -> bool:
        """Note what differs; False where nothing came out, for a reason that proves nothing."""
        same = each.surroundings.alike(self.here)
        if result.error:
            where = place(each, 0)
            if same and result.cause in ("raised", "not-finite"):
                self.faults.append(f"{where}: stored, and now it fails: {result.error}")
                return True
            self.left_out.append(LeftOut(where, len(each.shards), result.error))
            return False
        found = differences(each, result.outcomes)
        if found and same and self._surely(each, result.outcomes):
            self.faults += found
        elif found:
            self.unsteady += len(each.shards) if same else 0
            self.drift.add(each, result.outcomes)
            return True
        self.exact += len(each.shards)
        return True

    def _surely(self, each: Rebuilt, outcomes: Sequence[Outcomes]) -> bool:
        """Whether a difference is one: the same comes out again, twice, in one process.

        Randomness of a model's own, which no seed of the run reaches, or kernels that add in any
        order are not a forgery.
        """
        defense = each.task.cell.defense
        if defense in self._forged:
            return True
        first = dataclasses.replace(each, stored=tuple(outcomes))
        twice = InProcess(self.rebuilder.bench(each.surroundings.batch_size))
        for result in twice.run([each.task, each.task], self.observer.busy):
            if result.error or differences(first, result.outcomes):
                return False
        self._forged.add(defense)
        return True


def _place(task: Task) -> tuple[str, int]:
    """What no two tasks share, also after they were sent to a worker."""
    return task.cells[0][0], task.shard.number
