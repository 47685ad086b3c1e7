"""Processes for guests: how they start, what they are allowed, and how they end.

They belong to their parent: they ignore Ctrl-C, which the parent handles, and end when it does,
however it ended. Each leads a group of its own, so that what it starts ends with it. What it writes
goes to a file, which its parent reads when it died.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import io
import multiprocessing
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Guests are forked from a server, in which nothing has been computed, so that no thread is lost.
SERVER = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
#: A copy of this process, where there are such: for what only this one has. It cannot use a GPU
#: that this one has used, and computes with one thread, because others are not copied.
COPY = "fork" if "fork" in multiprocessing.get_all_start_methods() else SERVER
#: Where Linux says what a container may take.
CONTAINER = Path("/sys/fs/cgroup")
#: Of the memory that there is, what a guest on the CPU may take: the rest is for who watches it.
SHARE = 0.8
#: glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD: bytes freed at the end of the heap that are handed
#: back, and of a block that gets pages of its own.
HELD = {-1: 128 << 20, -3: 32 << 20}
#: Characters of what a dead process wrote that are kept.
LAST_WORDS = 20_000


@dataclass(frozen=True)
class Inherited:
    """What a process has of its parent, which a server that started before does not know."""

    folder: Path
    environment: dict[str, str]
    output: Path | None
    """Where it writes; None where the parent's standard error is."""
    memory: int | None
    """Bytes that it may take beside what it begins with; None for no limit."""
    compiled: bool
    """Whether what it imports is kept compiled beside the source."""


class GuestProcess:
    """A process that answers over a connection.

    Args:
        start: `SERVER` or `COPY`.
        target: called in it with the connection, and then `arguments`.
        output: the file that it writes to; the parent's standard error where None.
        limited: whether its memory is; a GPU's driver reserves more than there is.
    """

    def __init__(
        self,
        start: str,
        target: Callable[..., None],
        *arguments: Any,
        output: Path | None = None,
        limited: bool = True,
    ) -> None:
        context: Any = multiprocessing.get_context(start)
        self.output = output
        self.connection, theirs = context.Pipe()
        around = Inherited(
            Path.cwd(),
            dict(os.environ),
            output,
            round(SHARE * memory()) if limited else None,
            not sys.dont_write_bytecode,
        )
        self.process = context.Process(
            target=_live, args=(around, start, target, theirs, *arguments), daemon=True
        )
        self.process.start()
        theirs.close()

    def death(self) -> str:
        """How it ended, in words; it is given a second to end."""
        self.process.join(1.0)
        code = self.process.exitcode
        if code is None:
            return "closed the connection to this one"
        if code >= 0:
            return f"ended with exit code {code}"
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
        advice = (
            ", most likely because memory ran out: try fewer --workers or a smaller --batch-size"
            if -code == signal.SIGKILL
            else ""
        )
        return f"was ended by {name}{advice}"

    def abort(self) -> None:
        """Have it write where it stands, and end; a guest may prevent that."""
        with contextlib.suppress(OSError):
            os.kill(self.process.pid, signal.SIGABRT)
        self.process.join(1.0)

    def said(self) -> str:
        """The last that it wrote, where it stood when it was ended included."""
        if self.output is None:
            return ""
        try:
            lines = self.output.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return ""
        kept = [line for line in lines if not line.startswith("Extension modules: ")]
        return "\n".join(kept)[-LAST_WORDS:]

    def end(self) -> None:
        """End it at once, and all that it started."""
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.connection.close()


def begin_server() -> None:
    """Have the server import what guests on a CPU need, beside this process; again does nothing.

    Two of them start in a tenth of a second where two new interpreters take ten, and share the
    memory of what is imported. Plugins are left to the processes, which start where the run does,
    and so is torch where it is to use a GPU, which each sees of its own. Elsewhere than on Linux
    what has loaded such libraries cannot safely be forked: there each imports them.
    """
    if SERVER != "forkserver" or sys.platform != "linux":
        return
    from multiprocessing import forkserver

    forkserver.set_forkserver_preload(["bench.matrix.preloaded"])
    # It has to find the modules that this process finds, and a Ctrl-C is for this one alone.
    path = os.pathsep.join(place or str(Path.cwd()) for place in sys.path)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(PYTHONPATH=path, PYTHONSAFEPATH="1"):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """What starts meanwhile has these in its environment."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def cores() -> int:
    """Cores that this process, or the container that it runs in, may use."""
    # Not every system has an affinity.
    many = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CONTAINER / "cpu.max").read_text(encoding="ascii").split()
        return min(many, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no container, or one without a limit
        return many


def memory() -> int:
    """Bytes of memory that this machine, or the container that this runs in, has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        allowed = int((CONTAINER / "memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):  # no container, or one without a limit
        return machine
    return min(machine, allowed)


def _live(around: Inherited, start: str, target: Callable[..., None], *arguments: Any) -> None:
    """The life of a process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)
    os.chdir(around.folder)
    sys.dont_write_bytecode = not around.compiled
    if dict(os.environ) != around.environment:
        os.environ.clear()
        os.environ.update(around.environment)
    _limit(around.memory)
    hold_memory()
    _redirect(around.output)
    if around.output is None:
        faulthandler.disable()  # one line is said where its parent is
    else:
        faulthandler.enable(file=2)
    if start == COPY:
        import torch

        torch.set_num_threads(1)
    target(*arguments)


def _limit(allowed: int | None) -> None:
    """Bound its memory, have it die first where memory ends, and leave no image of it behind."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if allowed is not None:
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
            bytes_held = pages * os.sysconf("SC_PAGE_SIZE")
            _, hard = resource.getrlimit(resource.RLIMIT_DATA)
            resource.setrlimit(resource.RLIMIT_DATA, (bytes_held + allowed, hard))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def hold_memory() -> None:
    """Have glibc keep freed memory.

    It would hand a network's activations back after each call, to get them anew page by page, which
    takes as long as a small network does.
    """
    with contextlib.suppress(OSError, AttributeError):
        glibc = ctypes.CDLL(None)
        for parameter, size in HELD.items():
            glibc.mallopt(parameter, size)


def _redirect(output: Path | None) -> None:
    """Have standard output and error go to a file, or output to where errors go."""
    target = 2
    if output is not None:
        try:
            target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except FileNotFoundError:  # its parent ended meanwhile, and took the folder with it
            os._exit(1)
        os.dup2(target, 2)
    os.dup2(target, 1)
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.FileIO(number, "w", closefd=False), "utf-8", "replace", "\n", True)
        for number in (1, 2)
    )


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    with contextlib.suppress(OSError):
        if os.getpgrp() == os.getpid():
            os.killpg(0, signal.SIGKILL)
    os._exit(1)
