"""Every error Winnow raises on purpose, under one root.

A message says what was got, what is allowed and what to do next. Whatever derives from
`UsageError` is something the caller can mend: the command line prints it as one line and exits
with 2, without a traceback.
"""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class WinnowError(Exception):
    """The root of all errors raised by Winnow."""


class UsageError(WinnowError):
    """Something the caller got wrong and can mend."""


class UnknownNameError(UsageError):
    """A name that is not registered.

    Attributes:
        name: what was asked for.
        suggestions: registered names that look like it, the closest first.
    """

    def __init__(self, noun: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        names = sorted(known)
        lower = {each.lower(): each for each in reversed(names)}
        close = difflib.get_close_matches(name.lower(), sorted(lower), n=3, cutoff=0.6)
        self.suggestions = [lower[each] for each in close]
        if self.suggestions:
            hint = f"did you mean {' or '.join(map(repr, self.suggestions))}?"
        else:
            hint = f"known: {', '.join(names) or 'none'}"
        super().__init__(f"unknown {noun} {name!r}; {hint}")


class PluginError(UsageError):
    """A plugin that breaks the interface; the message names the plugin and the fault."""


class PluginWarning(UserWarning):
    """A plugin that cannot be loaded is left out, or stands on weights that are not its own."""


class PluginNotice(PluginWarning):
    """Files of the working directory were executed, because plugins are looked for there."""


class InputNotice(PluginWarning):
    """What was passed over or chosen while data or weights were read from files."""


class DataError(UsageError):
    """Examples that cannot be loaded or are not what they have to be."""


class CheckpointError(UsageError):
    """Weights that are missing, unreadable, or of another architecture."""


class ModelError(UsageError):
    """A model whose output on the clean inputs is not finite logits of shape (N, classes)."""


class StoreError(UsageError):
    """A run folder that cannot be written, is in use, or is not what it claims to be."""


class StoreWarning(UserWarning):
    """A stored run that cannot be read is left out of what is made of all of them."""


class AttackError(WinnowError):
    """An attack that broke its contract; its cell is recorded as failed and the others go on."""


class NonFiniteLogitsError(AttackError):
    """The model answered finite inputs with NaN or infinity during an attack."""


class MemoryEndedError(AttackError):
    """Memory ended with a single example in it."""


#: What a terminal obeys instead of showing it: escape sequences, control characters but for tab and
#: newline, characters that turn the direction of what follows, and halves of characters.
_STEERING = re.compile(
    "\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?"
    "|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Text from elsewhere without what steers a terminal or cannot be written as UTF-8."""
    return _STEERING.sub("", text)


def in_one_line(error: BaseException) -> str:
    """What an error says, in at most 500 characters; Winnow's own need no name before it."""
    try:
        text = " ".join(printable(str(error)).split())
    except Exception:  # noqa: BLE001 - somebody's error may raise one when it is asked
        text = ""
    if isinstance(error, WinnowError) and text:
        return text[:500]
    return f"{type(error).__name__}: {text or 'no message'}"[:500]


def check_positive(**parameters: float) -> None:
    """Check the parameters of an attack.

    Raises:
        UsageError: one of them is not greater than 0.
    """
    for key, value in parameters.items():
        if not value > 0:
            raise UsageError(f"{key} has to be greater than 0 (got {value})")


#: What says so without a class of its own: torch on the CPU, the CUDA runtime and Triton, cuBLAS
#: and cuDNN, and cuDNN where no algorithm's workspace fits.
_NO_MEMORY = (
    "not enough memory",
    "out of memory",
    "status_alloc_failed",
    "unable to find an engine to execute this computation",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ended, on the CPU or on a device."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    said = str(error).lower()
    return isinstance(error, Exception) and any(words in said for words in _NO_MEMORY)
