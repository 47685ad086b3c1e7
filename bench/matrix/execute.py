"""Doing tasks: in this process, or in worker processes on this machine.

Outcomes do not depend on which, because everything random about a task is fixed by its plan.
Workers belong to their parent: they ignore Ctrl-C, which the parent handles, and end when it does,
however it ended. A worker that dies takes down its task and nothing else.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
import warnings
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import PluginWarning
from bench.matrix.work import TaskResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

    from bench.matrix.tasks import Task
    from bench.matrix.work import Bench

#: Workers are forked from a server that has imported, once, what all of them need: two start in a
#: tenth of a second where two new interpreters take ten. Nothing has been computed in it, so that
#: no thread is lost by the fork; plugins are left to the workers, which start where the run does.
START = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
PRELOADED = ("torch", "pandas", "pyarrow.parquet", "foolbox", "pyautoattack", "bench.matrix.work")


class InProcess:
    """Does tasks here, one after the other: on a GPU, in a notebook, and in tests.

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

    def close(self) -> None:
        """Nothing to let go of."""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: Task | None = None


class Workers:
    """Does tasks in worker processes, each with one thread."""

    def __init__(self, bench: Bench, count: int) -> None:
        self.bench = bench
        self.count = count
        self._context: Any = multiprocessing.get_context(START)
        if START == "forkserver":
            self._context.set_forkserver_preload(list(PRELOADED))
        self._workers: list[_Worker] = []

    def run(
        self, tasks: Sequence[Task], on_busy: Callable[[list[Task]], None]
    ) -> Iterator[TaskResult]:
        """Results as they come."""
        queue = deque(tasks)
        while len(self._workers) < min(self.count, len(queue)):
            self._workers.append(self._start())
        pending = len(queue)
        while pending:
            for worker in self._workers:
                if worker.task is None and queue:
                    worker.task = queue.popleft()
                    with contextlib.suppress(OSError):  # it died unasked: noticed below
                        worker.connection.send(worker.task)
            on_busy([worker.task for worker in self._workers if worker.task])
            for worker in self._ready():
                result = self._receive(worker)
                if result is not None:
                    pending -= 1
                    yield result

    def _ready(self) -> list[_Worker]:
        busy = [worker for worker in self._workers if worker.task]
        waiting: list[Any] = [w.connection for w in busy] + [w.process.sentinel for w in busy]
        ready = multiprocessing.connection.wait(waiting)
        return [w for w in busy if w.connection in ready or w.process.sentinel in ready]

    def _receive(self, worker: _Worker) -> TaskResult | None:
        task = worker.task
        assert task is not None
        try:
            result: TaskResult = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join()
            code = worker.process.exitcode
            self._workers[self._workers.index(worker)] = self._start()
            return TaskResult(
                task,
                error=f"the worker process died (exit code {code}); with -9 the system most "
                "likely ran out of memory: try fewer --workers or a smaller --batch-size",
            )
        worker.task = None
        return result

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self.bench), daemon=True)
        process.start()
        theirs.close()
        return _Worker(process, ours)

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()


def _serve(connection: Connection, bench: Bench) -> None:
    """A worker's life: a task in, a result out, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore", PluginWarning)  # the parent has said it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(bench.run(task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
