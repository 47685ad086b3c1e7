"""pyautoattack's standard version, as it is: the reference that our own engine is held against."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING

import pyautoattack
from pyautoattack import checks

from bench.api import Flag, Proposal
from bench.api.attacks import radius
from bench.attacks.blocks import suspicions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.api import Problem

#: A part of each of AutoAttack's warnings (its `checks` module), and the flag that it becomes.
FLAGS = {
    "randomized defense": suspicions.RANDOMISED,
    "probability distribution": suspicions.PROBABILITIES,
    "zero gradient": suspicions.ZERO_GRADIENT,
    "Square Attack has decreased": suspicions.SQUARE,
    "dynamic defense": suspicions.DYNAMIC,
}


def by_pyautoattack(problem: Problem, members: Sequence[str]) -> Proposal:
    """Run these attacks of its standard version, all examples in one batch.

    Args:
        problem: with one epsilon.
        members: names of its attacks, in their order.

    Raises:
        AttackError: the problem has no epsilon, or several.
    """
    inputs, labels = problem.inputs.float().contiguous(), problem.labels.long()
    with listening() as flags:
        adversary = pyautoattack.AutoAttack(
            problem.model,
            norm=problem.norm.value,
            eps=radius(problem),
            version="standard",
            seed=problem.seed,
            device=inputs.device,
        )
        adversary.attacks_to_run = list(members)
        for targeted in (adversary.apgd_targeted, adversary.fab):
            targeted.n_target_classes = min(targeted.n_target_classes, problem.classes - 1)
        candidates, predicted = adversary.run_standard_evaluation(
            inputs, labels, batch_size=len(inputs)
        )
    candidates[predicted == labels] = inputs[predicted == labels]
    return Proposal(candidates.detach(), flags=tuple(flags))


class _Flags(logging.Handler):
    """Collects each warning once, in the order of their arrival."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.flags: list[Flag] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "classes" in message:  # settled before the run; wrong about APGD-DLR with 3 classes
            return
        known = (flag for part, flag in FLAGS.items() if part in message)
        flag = next(known, Flag("", f"AutoAttack: {message.partition(' See ')[0]}"))
        if flag not in self.flags:
            self.flags.append(flag)


@contextlib.contextmanager
def listening() -> Iterator[list[Flag]]:
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
