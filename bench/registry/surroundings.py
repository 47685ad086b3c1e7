"""What a guest may change of its process while it is asked, and what is put back afterwards.

A guest is whatever is not Winnow's own: plugins, and the modules that they make.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put back folder, signals, timer and standard streams, after an exception as well.

    What is written to standard output inside goes to standard error: the output is the answer of
    a command, and a guest has no part in it.
    """
    # Streams first: what is still in their buffers belongs where it was written to.
    with _folder(), _signals(), _streams(), _descriptors():
        yield


@contextlib.contextmanager
def same_environment() -> Iterator[None]:
    """Put back the variables of the environment. What is imported may set some for good."""
    variables, before = os.environ, dict(os.environ)
    try:
        yield
    finally:
        os.environ = variables  # noqa: B003 - the object itself, should a guest replace it
        if dict(variables) != before:
            variables.clear()
            variables.update(before)


@contextlib.contextmanager
def _folder() -> Iterator[None]:
    before = None
    with contextlib.suppress(OSError):  # it was removed: there is nothing to go back to
        before = Path.cwd()
    mask = os.umask(0o077)
    os.umask(mask)
    try:
        yield
    finally:
        os.umask(mask)
        if before is not None:
            with contextlib.suppress(OSError):
                os.chdir(before)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """Handlers, the mask and the timer; only the main thread may set them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    timed = signal.getitimer(signal.ITIMER_REAL)[0] > 0
    try:
        yield
    finally:
        if not timed:
            signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) != handler:
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextlib.contextmanager
def _descriptors() -> Iterator[None]:
    """Descriptors 0, 1 and 2; inside, 1 is where 2 is."""
    kept: dict[int, int] = {}
    for number in (0, 1, 2):
        with contextlib.suppress(OSError):  # closed already
            kept[number] = os.dup(number)
    with contextlib.suppress(OSError):
        os.dup2(2, 1)
    try:
        yield
    finally:
        for number, copy in kept.items():
            with contextlib.suppress(OSError):
                os.dup2(copy, number)
                os.close(copy)


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """`sys.stdin`, `sys.stdout`, `sys.stderr`; inside, the last two are lent ones."""
    before = sys.stdin, sys.stdout, sys.stderr
    for stream in before[1:]:
        with contextlib.suppress(Exception):  # whatever stands there may be closed or None
            stream.flush()
    sys.stdout, sys.stderr = _Lent(before[2]), _Lent(before[2])
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


class _Lent(io.TextIOBase):
    """Writes to a stream; closing it closes nothing else."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return bool(self._stream.isatty())

    def fileno(self) -> int:
        return int(self._stream.fileno())

    def write(self, text: str) -> int:
        if self.closed:
            raise ValueError("write to a closed stream")
        return int(self._stream.write(text))

    def flush(self) -> None:
        if not self.closed:
            self._stream.flush()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return str(self._stream.encoding)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
