"""What AutoAttack says while it runs, as flags; and the global state that it leaves behind."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING

from pyautoattack import checks

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A part of each of AutoAttack's warnings (its `checks` module), and the flag that it becomes.
FLAGS = {
    "randomized defense": "the defense seems to be randomised",
    "probability distribution": "the output looks like probabilities instead of logits",
    "zero gradient": "the gradient is zero for some examples",
    "Square Attack has decreased": "Square lowers the accuracy beyond the white-box attacks",
    "dynamic defense": "the defense seems to compute gradients inside its forward pass",
}


class _Flags(logging.Handler):
    """Collects each warning once, in the order of their arrival."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.flags: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "classes" in message:  # settled before the run; wrong about APGD-DLR with 3 classes
            return
        known = (flag for part, flag in FLAGS.items() if part in message)
        flag = "AutoAttack: " + next(known, message.partition(" See ")[0])
        if flag not in self.flags:
            self.flags.append(flag)


@contextlib.contextmanager
def listening() -> Iterator[list[str]]:
    """Collect AutoAttack's warnings as flags while it runs; the list fills as it goes.

    AutoAttack counts the calls of its check for dynamic defenses in a global that it never resets,
    so that one such defense would mark every later one: it starts at 0 here. The check also ends
    with `sys.settrace(None)`: the trace function (of coverage or a debugger) is put back. Nothing
    is printed, and the logger is left as it was found.
    """
    logger = logging.getLogger("auto-attack")
    handler = _Flags()
    level, propagate, trace = logger.level, logger.propagate, sys.gettrace()
    for name in checks.funcs:
        checks.funcs[name] = 0
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield handler.flags
    finally:
        sys.settrace(trace)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
