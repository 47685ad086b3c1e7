"""What a command takes with every process that it starts: processor time, and memory.

    python benchmarks/accounting.py python -m bench run --defense kwta --attacks pgd

Prints one line of JSON behind what the command prints: `processor`, seconds of all its processes on
all cores; `largest`, the most that one of them held in bytes; `together`, the most that all of them
held at a time, what they share counted once; `status`, the command's own.

A process whose parent ends is handed to this one, so that it is waited for and counted as well. It
takes Linux, which hands them over.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Of Linux's `prctl`: orphans below this process become its children.
_SUBREAPER = 36
#: Seconds between two looks at the memory.
_EVERY = 0.25


class Account(NamedTuple):
    """What a command and all its processes took."""

    processor: float
    """Seconds on all cores."""
    largest: int
    """Bytes that one process held at its peak."""
    together: int
    """Bytes that all of them held at a time."""
    status: int
    """Of the command's end."""


def account(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[Account, str]:
    """Run a command to its end, by this script in a process of its own.

    Args:
        command: with its arguments.
        folder: it runs in.
        environment: of it; this process's where None.

    Returns:
        What it took, and what it printed.
    """
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    *printed, last = done.stdout.splitlines()
    return Account(**json.loads(last)), "\n".join(printed)


def main(command: Sequence[str]) -> None:
    """Run it here, and print what it took."""
    if ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("orphans cannot be counted here: prctl refuses")
    ended = threading.Event()
    held = _Memory()
    watching = threading.Thread(target=held.watch, args=(ended,))
    process = subprocess.Popen(command)
    watching.start()
    status = process.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    ended.set()
    watching.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = Account(used.ru_utime + used.ru_stime, held.largest, held.together, status)
    sys.stdout.write(json.dumps(found._asdict()) + "\n")


class _Memory:
    """The peaks of the processes below this one, as far as looks at them tell."""

    def __init__(self) -> None:
        self.largest = 0
        self.together = 0

    def watch(self, ended: threading.Event) -> None:
        """Look until the end."""
        while not ended.wait(_EVERY):
            below = list(_below(os.getpid()))
            self.together = max(self.together, sum(_bytes(p, "smaps_rollup") for p in below))
            self.largest = max([self.largest, *(_bytes(p, "status") for p in below)])


def _below(process: int) -> Iterator[int]:
    """Its children, theirs, and so on."""
    for file in Path(f"/proc/{process}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _below(child)


def _bytes(process: int, file: str) -> int:
    """Bytes: the peak from `status`, its fair share of what it holds now from `smaps_rollup`."""
    with contextlib.suppress(OSError):  # it has ended
        for line in Path(f"/proc/{process}/{file}").read_text().splitlines():
            if line.startswith(("VmHWM:", "Pss:")):
                return 1024 * int(line.split()[1])
    return 0


if __name__ == "__main__":
    main(sys.argv[1:])
