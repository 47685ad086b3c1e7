"""Hands on this machine: processes, each on one device."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
import warnings
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import PluginWarning, in_one_line
from bench.matrix.execute import Died
from bench.matrix.processes import SERVER, GuestProcess, begin_server
from bench.matrix.work import TaskResult
from bench.record.provenance import Surroundings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from multiprocessing.connection import Connection

    from bench.matrix.execute import News
    from bench.matrix.tasks import Task
    from bench.matrix.work import Bench

#: By what torch's allocator on a GPU is told how to work, the older name second: it reads them when
#: it is first used. And what it is told.
ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
GROWING = "expandable_segments:True"


class LocalHand:
    """A process that does one task at a time, with one thread; a fresh one follows one that died.

    Args:
        bench: what it needs.
        device: where it computes: `cpu`, or a GPU, which is then the only one that it sees.
        folder: where it writes what it says.
        start: how it starts, see `bench.matrix.processes`.
    """

    def __init__(self, bench: Bench, device: str, folder: Path, start: str = SERVER) -> None:
        self.bench, self.device, self.folder, self.start = bench, device, folder, start
        self.task: Task | None = None
        self._limit: float | None = None
        self._until: float | None = None
        """When its time is over, by the monotonic clock; None until it has begun."""
        self._started = 0
        self._process = self._fresh()

    def send(self, task: Task, limit: float | None) -> None:
        """Have it do a task."""
        self.task, self._limit = task, limit
        with contextlib.suppress(OSError):  # it died unasked: `news` says so
            self._process.connection.send(task)

    @property
    def signs(self) -> list[Any]:
        """What to wait for: that it says something, or dies."""
        return [self._process.connection, self._process.process.sentinel]

    @property
    def patience(self) -> float:
        """Seconds until its time is over, at most one."""
        return 1.0 if self._until is None else min(1.0, max(0.0, self._until - time.monotonic()))

    def news(self) -> TaskResult | Died | None:
        """What came of its task; None where that is not known yet. Its signs are to be waited for.

        What made a guest fail in a way that nobody expected, or fail on a GPU, may still be in its
        process: a fresh one takes its place.
        """
        task, process = self.task, self._process
        assert task is not None
        overdue = self._until is not None and self._until <= time.monotonic()
        found: TaskResult | Died | None = None
        try:
            if process.connection.poll(0.0 if overdue else 1.0):
                found = process.connection.recv()
                if found is None:  # it has begun
                    self._until = self._limit and time.monotonic() + self._limit
                    return None
            elif overdue:
                process.abort()
                found = _out_of_time(task, self._limit, process.said())
        except Exception:  # noqa: BLE001 - an end, or what a guest wrote into the connection
            found = None
        self.task = self._until = None
        found = found or Died(process.death(), process.said())
        if isinstance(found, Died) or self._spoilt(found):
            process.end()
            self._process = self._fresh()
        return found

    def wait(self) -> TaskResult | Died:
        """What came of its task, as soon as it is known."""
        while True:
            ready = wait(self.signs, self.patience)
            news = self.news() if ready or self.patience == 0 else None
            if news is not None:
                return news

    def end(self) -> None:
        """End its process at once."""
        self._process.end()

    def _spoilt(self, result: TaskResult) -> bool:
        unexpected = bool(result.detail) or result.cause in ("timeout", "out-of-memory")
        return unexpected or (bool(result.error) and self.device != "cpu")

    def _fresh(self) -> GuestProcess:
        self._started += 1
        return GuestProcess(
            self.start,
            _serve,
            self.bench,
            self.device,
            output=self.folder / f"{id(self)}-{self._started}.txt",
            limited=self.device == "cpu",
        )


class LocalHands:
    """Processes on this machine, started as there is work for them.

    Args:
        bench: what they need.
        devices: of each process the one that it computes on, such as `("cuda:0", "cuda:1")`.
        start: how they start, see `bench.matrix.processes`.
    """

    def __init__(self, bench: Bench, devices: Sequence[str], start: str = SERVER) -> None:
        self.bench, self.devices, self.start = bench, devices, start
        self._hands: list[LocalHand] = []
        self._folder = tempfile.TemporaryDirectory(prefix="winnow-workers-")
        if start == SERVER and devices[0] == "cpu":
            begin_server()

    def idle(self, wanted: int) -> list[LocalHand]:
        """Those that have nothing to do, of as many as there is work for."""
        for device in self.devices[len(self._hands) : wanted]:
            folder = Path(self._folder.name)
            self._hands.append(LocalHand(self.bench, device, folder, self.start))
        return [hand for hand in self._hands if hand.task is None]

    def news(self) -> list[tuple[Task, News]]:
        """What came of tasks."""
        busy = [hand for hand in self._hands if hand.task is not None]
        # Not for ever: a Ctrl-C that comes just before it would wait as well.
        signs = [sign for hand in busy for sign in hand.signs]
        ready = set(wait(signs, min((hand.patience for hand in busy), default=1.0)))
        found: list[tuple[Task, News]] = []
        for hand in busy:
            task = hand.task
            if task is not None and (hand.patience == 0 or not ready.isdisjoint(hand.signs)):
                news = hand.news()
                found += [] if news is None else [(task, news)]
        return found

    @property
    def surroundings(self) -> Surroundings:
        """On the first of the devices, which are of one kind."""
        return Surroundings.of(self.devices[0])

    def close(self) -> None:
        """End all processes at once, whatever they are doing."""
        for hand in self._hands:
            hand.end()
        self._hands.clear()
        self._folder.cleanup()


def _out_of_time(task: Task, seconds: float | None, said: str) -> TaskResult:
    return TaskResult(
        task,
        error=f"it did not end within {seconds or 0:,.4g} s and was ended; if that is what it "
        "needs, give a longer --timeout, or 0 for none",
        cause="timeout",
        detail=said,
    )


def _serve(connection: Connection, bench: Bench, device: str) -> None:
    """A worker's life: a task in, word that it began, news out, until the parent is gone."""
    warnings.simplefilter("ignore", PluginWarning)  # the parent has said it
    bench.device = _alone_with(device)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        with contextlib.suppress(OSError):  # nothing to write to, or nothing there
            os.ftruncate(2, 0)
        connection.send(None)
        try:
            result = bench.run(task)
        except BaseException as error:  # noqa: BLE001 - Ctrl-C is the parent's, so that any is a guest's
            result = TaskResult.raised(task, error)
        fault = _fault_of(bench.device)
        connection.send(Died(f"met {fault}", result.detail) if fault else result)


def _alone_with(device: str) -> str:
    """Let this process see one GPU alone, its own, before CUDA starts in it; what it calls it.

    Its memory is held in segments that grow, unless the user says otherwise: of blocks of fixed
    size those of one batch do not serve a larger one, and memory ends while much of it is free.
    """
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return device
    if not any(name in os.environ for name in ALLOCATOR):
        os.environ[ALLOCATOR[0]] = GROWING
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    names = [name.strip() for name in seen.split(",")] if seen else []
    number = int(index or 0)
    os.environ["CUDA_VISIBLE_DEVICES"] = names[number] if names else str(number)
    return "cuda:0"


def _fault_of(device: str) -> str:
    """What a GPU says that computes no more: after an error of CUDA's nothing does in a process.

    Asking waits for all that was begun, so that no task's fault comes to light in the next.
    """
    if device == "cpu":
        return ""
    import torch

    try:
        torch.cuda.synchronize()
    except Exception as error:  # noqa: BLE001 - a class of its own only in newer versions of torch
        return in_one_line(error)
    return ""
