"""Attacks that do things to the process they run in, registered for tests of this process."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from bench.api import Problem, Proposal
from bench.registry import register_attack
from tests.plugins import Best, Cheat

if TYPE_CHECKING:
    from collections.abc import Callable

#: The command line of what a guest leaves running.
LEFT = ("sleep", "4711.5")
_kept: list[Any] = []


class OwnError(BaseException):
    """No error that anybody expects, and one that cannot be printed."""

    def __str__(self) -> str:
        """Fail."""
        raise RuntimeError


def _raise(error: BaseException) -> None:
    raise error


def _interrupted() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)


def _alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(5)


def _memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
    while True:
        _kept.append(bytearray(64 << 20))


def _stop_thinking() -> None:
    while True:
        torch.zeros(1)


def _close_streams() -> None:
    sys.stdout.close()
    sys.stderr.close()
    for number in (0, 1, 2):
        os.close(number)


def _handlers() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    signal.setitimer(signal.ITIMER_REAL, 0.2)


def _write() -> None:
    print("hello")  # noqa: T201 - what guests do
    os.write(1, b"hello again\n")


def _within_limits() -> None:
    """Fail unless this process leads a group of its own and is bounded."""
    assert os.getpgrp() == os.getpid()
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < resource.getrlimit(resource.RLIMIT_DATA)[0] < whole
    assert Path("/proc/self/oom_score_adj").read_text(encoding="ascii") == "1000\n"
    assert torch.get_num_threads() == 1


#: What ends in an exception, whichever process it happens in; then the cause that is recorded.
RAISES: dict[str, tuple[Callable[[], object], str]] = {
    "exit": (sys.exit, "raised"),
    "generator": (lambda: _raise(GeneratorExit()), "raised"),
    "stop-iteration": (lambda: _raise(StopIteration()), "raised"),
    "own": (lambda: _raise(OwnError()), "raised"),
    "memory": (lambda: _raise(MemoryError()), "out-of-memory"),
}
#: What a process of its own does not survive, or what only it may be asked.
ENDS: dict[str, tuple[Callable[[], object], str]] = {
    "leave": (lambda: os._exit(0), "died"),
    "kill": (lambda: os.kill(os.getpid(), signal.SIGKILL), "died"),
    "terminate": (lambda: os.kill(os.getpid(), signal.SIGTERM), "died"),
    "alarm": (_alarm, "died"),
    "abort": (os.abort, "died"),
    "segfault": (lambda: ctypes.string_at(0), "died"),
    "silence": (lambda: os.closerange(0, 256), "died"),
    "interrupt": (lambda: _raise(KeyboardInterrupt()), "raised"),
    "signal-itself": (_interrupted, "raised"),
    "all-memory": (_memory, "out-of-memory"),
    "hang": (_stop_thinking, "timeout"),
}
#: What may be put back; the attack then goes on as `Best`.
CHANGES: dict[str, Callable[[], object]] = {
    "streams": _close_streams,
    "folder": lambda: os.chdir("/"),
    "environment": os.environ.clear,
    "handlers": _handlers,
    "umask": lambda: os.umask(0o777),
    "writes": _write,
    "starts": lambda: subprocess.Popen(LEFT),
}
#: What only a process of its own is.
CHECKS: dict[str, Callable[[], object]] = {"limits": _within_limits}


@register_attack("test-guest")
class Guest(Best):
    """Does something to its process, and then what `Best` does."""

    def __init__(self, *, does: str = "") -> None:
        self.does = does

    def run(self, problem: Problem) -> Proposal:
        """Do it."""
        does, _ = {**RAISES, **ENDS}.get(self.does, ({**CHANGES, **CHECKS}.get(self.does), ""))
        if does is not None:
            does()
        return super().run(problem)


@register_attack("test-mortal")
class Mortal(Cheat):
    """Noise; its process is killed some times in each shard, as somebody from outside might."""

    folder: ClassVar[Path]
    """Where it leaves a mark of each death."""
    deaths: ClassVar[int] = 0

    def run(self, problem: Problem) -> Proposal:
        """Die as long as there are marks to set."""
        for number in range(self.deaths):
            mark = self.folder / f"{problem.seed}-{number}"
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        noise = torch.rand_like(problem.inputs) * 2 - 1
        return Proposal((problem.inputs + 0.1 * noise).clamp(0, 1))
