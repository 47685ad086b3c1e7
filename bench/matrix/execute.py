"""Doing tasks: in this process, or in worker processes on this machine.

Outcomes do not depend on which, because everything random about a task is fixed by its plan. A
worker that dies is followed by a fresh one that gets the task again: what killed it may have come
from outside. A task that takes its worker down each time, or does not end, has failed, and the
others go on.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from collections import deque
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import PluginWarning
from bench.matrix.patience import Patience
from bench.matrix.processes import SERVER, GuestProcess
from bench.matrix.work import TaskResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from bench.matrix.tasks import Task
    from bench.matrix.work import Bench
    from bench.record.outcomes import Totals

#: How often a task is tried whose worker dies.
TRIES = 3


class InProcess:
    """Does tasks here, one after the other: on a GPU, in a notebook, and in tests.

    A guest that ends the process, or does not end, cannot be helped here.

    `on_busy` is told which tasks are being worked on, whenever that changes.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    def run(
        self, tasks: Sequence[Task], on_busy: Callable[[list[Task]], None]
    ) -> Iterator[TaskResult]:
        """Results in the order of the tasks."""
        for task in tasks:
            on_busy([task])
            yield self.bench.run(task)

    def learn(self, defense: str, clean: Totals) -> None:
        """Nothing is ended here, however long it takes."""

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class _Errand:
    """A task on its way to a result."""

    task: Task
    deaths: int = 0
    """Workers that it was the last thing in."""


@dataclass
class _Worker:
    """A process and what it is doing."""

    process: GuestProcess
    errand: _Errand | None = None
    limit: float | None = None
    """Seconds that the task may take."""
    until: float | None = None
    """When they are over, by the monotonic clock; None until it has begun."""


class Workers:
    """Does tasks in worker processes, each with one thread.

    Args:
        bench: what they need.
        count: of processes.
        patience: how long a task may take.
        start: how processes start, see `bench.matrix.processes`.
    """

    def __init__(
        self, bench: Bench, count: int, patience: Patience | None = None, start: str = SERVER
    ) -> None:
        self.bench = bench
        self.count = count
        self.patience = patience or Patience(None)
        self.start = start
        self._workers: list[_Worker] = []
        self._started = 0
        self._folder = tempfile.TemporaryDirectory(prefix="winnow-workers-")

    def run(
        self, tasks: Sequence[Task], on_busy: Callable[[list[Task]], None]
    ) -> Iterator[TaskResult]:
        """Results as they come.

        A task that killed a worker comes again when all others are done, and by itself: what had
        not enough memory beside them may have it then. Once a cell has lost a shard for good, its
        others are not done.
        """
        queue = deque(map(_Errand, tasks))
        suspects: deque[_Errand] = deque()
        while len(self._workers) < min(self.count, len(queue)):
            self._workers.append(self._worker())
        while queue or suspects or self._busy():
            self._assign(queue, suspects)
            on_busy([worker.errand.task for worker in self._busy() if worker.errand])
            for worker in self._ready():
                result = self._receive(worker, suspects)
                if result is None:
                    continue
                if result.cause in ("died", "timeout"):
                    _drop(result.task, queue, suspects)
                yield result

    def learn(self, defense: str, clean: Totals) -> None:
        """What the clean predictions of a defense took."""
        self.patience.learn(defense, clean)

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        for worker in self._workers:
            worker.process.end()
        self._workers.clear()
        self._folder.cleanup()

    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.errand]

    def _assign(self, queue: deque[_Errand], suspects: deque[_Errand]) -> None:
        """Give every idle worker something to do."""
        for worker in self._workers:
            if worker.errand is None and queue:
                self._give(worker, queue.popleft())
        if suspects and not self._busy():
            self._give(self._workers[0], suspects.popleft())

    def _give(self, worker: _Worker, errand: _Errand) -> None:
        worker.errand, worker.limit = errand, self.patience.limit(errand.task)
        with contextlib.suppress(OSError):  # it died unasked: noticed by `_ready`
            worker.process.connection.send(errand.task)

    def _ready(self) -> list[_Worker]:
        """Those that have something to say, that died, or whose time is over."""
        busy = self._busy()
        ends = [worker.until for worker in busy if worker.until is not None]
        waiting: list[Any] = [w.process.connection for w in busy]
        waiting += [w.process.process.sentinel for w in busy]
        # Not for ever: a Ctrl-C that comes just before it would wait as well.
        ready = wait(waiting, max(0.0, min([1.0, *(end - time.monotonic() for end in ends)])))
        now = time.monotonic()
        return [
            w
            for w in busy
            if w.process.connection in ready
            or w.process.process.sentinel in ready
            or (w.until is not None and w.until <= now)
        ]

    def _receive(self, worker: _Worker, suspects: deque[_Errand]) -> TaskResult | None:
        """What came of its task; None where that is not known yet."""
        errand, process = worker.errand, worker.process
        assert errand is not None
        overdue = worker.until is not None and worker.until <= time.monotonic()
        result: TaskResult | None = None
        try:
            if process.connection.poll(0.0 if overdue else 1.0):
                result = process.connection.recv()
                if result is None:  # it has begun
                    worker.until = worker.limit and time.monotonic() + worker.limit
                    return None
            elif overdue:
                process.abort()
                result = _out_of_time(errand.task, worker.limit, process.said())
        except Exception:  # noqa: BLE001 - an end, or what a guest wrote into the connection
            result = None
        worker.errand = worker.until = None
        if result is None:
            result = self._after_death(errand, process, suspects)
        # What made a guest fail in a way that nobody expected may still be in its process.
        if result is None or result.detail or result.cause in ("died", "timeout", "out-of-memory"):
            process.end()
            worker.process = self._worker().process
        return result

    def _after_death(
        self, errand: _Errand, process: GuestProcess, suspects: deque[_Errand]
    ) -> TaskResult | None:
        """None where its task is to be tried again."""
        errand.deaths += 1
        if errand.deaths == TRIES:
            return _died(errand.task, process)
        if errand.deaths == 1:
            suspects.append(errand)
        else:
            suspects.appendleft(errand)
        return None

    def _worker(self) -> _Worker:
        self._started += 1
        output = Path(self._folder.name) / f"{self._started}.txt"
        limited = self.bench.device == "cpu"
        return _Worker(GuestProcess(self.start, _serve, self.bench, output=output, limited=limited))


def _drop(task: Task, *queues: deque[_Errand]) -> None:
    """Leave out what fills the same cells."""
    lost = set(task.cells)
    for queue in queues:
        kept = [errand for errand in queue if lost.isdisjoint(errand.task.cells)]
        queue.clear()
        queue.extend(kept)


def _out_of_time(task: Task, seconds: float | None, said: str) -> TaskResult:
    return TaskResult(
        task,
        error=f"it did not end within {seconds or 0:,.4g} s and was ended; if that is what it "
        "needs, give a longer --timeout, or 0 for none",
        cause="timeout",
        detail=said,
    )


def _died(task: Task, process: GuestProcess) -> TaskResult:
    return TaskResult(
        task,
        error=f"it took down {TRIES} processes, one after the other: the last {process.death()}",
        cause="died",
        detail=process.said(),
    )


def _serve(connection: Connection, bench: Bench) -> None:
    """A worker's life: a task in, word that it began, a result out, until the parent is gone."""
    warnings.simplefilter("ignore", PluginWarning)  # the parent has said it
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        with contextlib.suppress(OSError):  # nothing to write to, or nothing there
            os.ftruncate(2, 0)
        connection.send(None)
        try:
            connection.send(bench.run(task))
        except BaseException as error:  # noqa: BLE001 - Ctrl-C is the parent's, so that any is a guest's
            connection.send(TaskResult.raised(task, error))
