"""Every error Winnow raises on purpose, under one root.

A message says what was got, what is allowed and what to do next. Whatever derives from
`UsageError` is something the caller can mend: the command line prints it as one line and exits
with 2, without a traceback.
"""

from __future__ import annotations

import difflib
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
        self.suggestions = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
        if self.suggestions:
            hint = f"did you mean {' or '.join(map(repr, self.suggestions))}?"
        else:
            hint = f"known: {', '.join(names) or 'none'}"
        super().__init__(f"unknown {noun} {name!r}; {hint}")


class PluginError(UsageError):
    """A plugin that breaks the interface; the message names the plugin and the fault."""


class PluginWarning(UserWarning):
    """A plugin that cannot be loaded is left out, or stands on weights that are not its own."""


class DataError(UsageError):
    """Examples that cannot be loaded or are not what they have to be."""


class CheckpointError(UsageError):
    """Weights that are missing, unreadable, or of another architecture."""


class ModelError(UsageError):
    """A model whose output on the clean inputs is not finite logits of shape (N, classes)."""


class StoreError(UsageError):
    """A run folder that cannot be written, is in use, or is not what it claims to be."""


class AttackError(WinnowError):
    """An attack that broke its contract; its cell is recorded as failed and the others go on."""


class NonFiniteLogitsError(AttackError):
    """The model answered finite inputs with NaN or infinity during an attack."""


class MemoryEndedError(AttackError):
    """Memory ended with a single example in it."""


def check_positive(**parameters: float) -> None:
    """Check the parameters of an attack.

    Raises:
        UsageError: one of them is not greater than 0.
    """
    for key, value in parameters.items():
        if not value > 0:
            raise UsageError(f"{key} has to be greater than 0 (got {value})")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ended, on the CPU or on a device."""
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        # torch's allocator on the CPU has no class of its own.
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )
