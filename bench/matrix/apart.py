"""Asking a guest something before its tasks: in a process of its own, or in this one.

Whatever comes of it is its answer or one line: that it raised, exited, died, or did not end.
"""

from __future__ import annotations

import time
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bench.errors import ModelError, WinnowError, in_one_line
from bench.matrix.processes import SERVER, GuestProcess
from bench.registry.surroundings import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

T = TypeVar("T")


def apart(
    function: Callable[..., T], *arguments: Any, start: str = SERVER, timeout: float | None = None
) -> T:
    """What a function returns, computed in a process of its own; its warnings are given here.

    Args:
        function: gets a function that it tells whom it asks, and then the arguments. They and its
            value are pickled, but for what a copy of this process has already.
        arguments: its own.
        start: how its process starts.
        timeout: seconds after which it is ended; None for no end.

    Raises:
        WinnowError: as it raised.
        ModelError: it raised anything else, its process died, or time ended.
    """
    process = GuestProcess(start, _answer, function, arguments, limited=False)
    end = None if timeout is None else time.monotonic() + timeout
    whom = ""
    try:
        while True:
            # Not for ever: a Ctrl-C that comes just before it would wait as well.
            if not process.connection.poll(1.0):
                if end is None or time.monotonic() < end:
                    continue
                raise ModelError(
                    f"{whom}it did not end within {timeout:g} s; give a longer --timeout, or 0 "
                    "for none"
                )
            kind, value, told = process.connection.recv()
            if kind == "asking":
                whom = f"{value}: "
                continue
            for category, text in told:
                warnings.warn(text, category, stacklevel=2)
            if kind == "raised":
                error, text = value
                raise error.__new__(error, text)
            result: T = value
            return result
    except (EOFError, ConnectionError):
        raise ModelError(f"{whom}its process {process.death()}") from None
    finally:
        process.end()


def here(function: Callable[..., T], *arguments: Any) -> T:
    """The same in this process, which a guest can still end: nothing here prevents that.

    Raises:
        WinnowError: as it raised.
        ModelError: it raised anything else that is no `KeyboardInterrupt`.
    """
    asked = ""

    def say(whom: str) -> None:
        nonlocal asked
        asked = whom

    try:
        with undisturbed():
            return function(say, *arguments)
    except (WinnowError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ModelError(_told(error, asked)) from error


def _answer(connection: Connection, function: Callable[..., Any], arguments: tuple[Any]) -> None:
    """What the process does."""
    asked = ""

    def say(whom: str) -> None:
        nonlocal asked
        asked = whom
        connection.send(("asking", whom, ()))

    with warnings.catch_warnings(record=True) as caught:
        try:
            kind, value = "returned", function(say, *arguments)
        except WinnowError as error:
            kind, value = "raised", (_known(type(error)), str(error))
        except BaseException as error:  # noqa: BLE001 - anybody's code may raise anything
            kind, value = "raised", (ModelError, _told(error, asked))
    told = [(_known(each.category), str(each.message)) for each in caught]
    connection.send((kind, value, told))


def _told(error: BaseException, whom: str) -> str:
    """What somebody's code raised, in one line, and where."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return (f"{whom}: " if whom else "") + in_one_line(error) + where


def _known(category: type) -> type:
    """An error or a warning of Winnow's own, or the nearest that every process knows."""
    places = (WinnowError.__module__, "builtins")
    return next(cls for cls in category.__mro__ if cls.__module__ in places)
