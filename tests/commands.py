"""Commands in processes of their own, as a reader's shell starts them, without its waiting.

They are forked from a server that has loaded the heavy libraries once (`tests.forking`); what a
new interpreter alone can show, such as what is imported, is tested with one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import bench

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(bench.__file__).parent.parent
#: Seconds until a command counts as stuck.
PATIENCE = 600


@dataclass
class Running:
    """A process that was started."""

    words: list[str]
    pid: int
    """Of the process and of its group: its workers belong to it."""
    out: Path
    err: Path

    def is_alive(self) -> bool:
        """Whether it has not ended yet."""
        answers = _server().stdout
        assert answers is not None
        return not select.select([answers], [], [], 0)[0]

    def wait(self) -> subprocess.CompletedProcess[str]:
        """How it ended, and what it said; negative numbers are signals."""
        code = int(_answer(self.words, self.pid))
        _awaited.clear()
        return subprocess.CompletedProcess(
            self.words, code, self.out.read_text(encoding="utf-8"),
            self.err.read_text(encoding="utf-8"),
        )  # fmt: skip


def start(
    *words: object, kind: str = "command", cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> Running:
    """Start a process; one at a time, which is to be waited for.

    One that a failed test did not wait for is ended first: its end would be taken for the start
    of this one, and its exit code for a process to kill.

    Args:
        words: the arguments of `python -m bench`.
        kind: `file` for a path and its arguments, `source` for Python to execute.
        cwd: where it starts.
        env: its environment; this one's where None.
    """
    if _awaited:
        left = _awaited.pop()
        _kill(left.pid)
        _answer(left.words)
    given = [str(word) for word in words]
    folder = Path(tempfile.mkdtemp(dir=_place()))
    asked = {
        "kind": kind,
        "words": given,
        "cwd": str(cwd),
        "env": dict(os.environ if env is None else env),
        "out": str(folder / "out"),
        "err": str(folder / "err"),
    }
    server = _server()
    assert server.stdin is not None
    server.stdin.write(json.dumps(asked).encode() + b"\n")
    running = Running(given, int(_answer(given)), folder / "out", folder / "err")
    _awaited.append(running)
    return running


def call(
    *words: object, kind: str = "command", cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Start a process, and wait for it."""
    return start(*words, kind=kind, cwd=cwd, env=env).wait()


def interpret(
    words: Sequence[object], cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same with a program of its own, such as a new interpreter: a slow start."""
    return subprocess.run(
        [str(word) for word in words], cwd=cwd, env=env,
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


#: The process that was started and not waited for yet, if any.
_awaited: list[Running] = []


def _answer(words: Sequence[str], pid: int | None = None) -> bytes:
    server = _server()
    assert server.stdout is not None
    if not select.select([server.stdout], [], [], PATIENCE)[0]:
        if pid is not None:
            _kill(pid)
        raise TimeoutError(f"after {PATIENCE} s there is no answer to {' '.join(words)}")
    line = server.stdout.readline()
    if not line:
        raise RuntimeError(f"the server of processes ended with {server.wait()}")
    return line


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):  # it makes a group of its own only once it has begun
        with contextlib.suppress(OSError):
            kill(pid, signal.SIGKILL)


@functools.cache
def _server() -> subprocess.Popen[bytes]:
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "forking.py")],
        # Without a buffer, or `select` would not see the second of two lines.
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )  # fmt: skip
    atexit.register(_end, server)
    return server


def _end(server: subprocess.Popen[bytes]) -> None:
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(5)
    except subprocess.TimeoutExpired:
        server.kill()


@functools.cache
def _place() -> str:
    folder = tempfile.TemporaryDirectory(prefix="winnow-commands-")
    atexit.register(folder.cleanup)
    return folder.name
