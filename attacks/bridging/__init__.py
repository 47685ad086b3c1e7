"""Building blocks of the adapters to other libraries; nothing here is a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import AttackError, UsageError

if TYPE_CHECKING:
    from bench.api import Problem


def radius(problem: Problem) -> float:
    """The epsilon that a fixed-epsilon attack has to have.

    Raises:
        AttackError: the problem has none.
    """
    if problem.epsilon is None:
        raise AttackError("a fixed-epsilon attack needs an epsilon (got None)")
    return problem.epsilon


def check_positive(**parameters: float) -> None:
    """Check the parameters of an attack.

    Raises:
        UsageError: one of them is not greater than 0.
    """
    for key, value in parameters.items():
        if not value > 0:
            raise UsageError(f"{key} has to be greater than 0 (got {value})")
