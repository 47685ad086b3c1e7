"""How long a task may take before it counts as one that does not end."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.matrix.tasks import Task
    from bench.record.outcomes import Totals

#: Seconds for what makes a defense, and for the task that times it.
FIRST = 3600.0
#: Seconds that every task may take, and how many times what its passes should.
LEAST, TIMES = 600.0, 20.0


class Patience:
    """The seconds that a task may take.

    Without a number of the user's they follow from what the clean predictions took: every pass of
    the task as long as one of the whole shard, so that few examples, which keep a machine no less
    busy, count as many.

    Args:
        seconds: the user's; 0 for no end, None for what follows.

    Raises:
        UsageError: less than 0, or no number.
    """

    def __init__(self, seconds: float | None) -> None:
        real = isinstance(seconds, numbers.Real)
        if seconds is not None and not (real and 0 <= seconds < math.inf):
            raise UsageError(f"--timeout has to be seconds from 0 up; 0 for no end (got {seconds})")
        self.seconds = seconds
        self._pass: dict[str, float] = {}

    @property
    def first(self) -> float | None:
        """Seconds for what nothing is known about yet; None for no end."""
        return FIRST if self.seconds is None else self.seconds or None

    def learn(self, defense: str, clean: Totals) -> None:
        """What the clean predictions of a defense took."""
        self._pass[defense] = clean.seconds / max(1, clean.forwards)

    def limit(self, task: Task) -> float | None:
        """Seconds; None for no end."""
        name = task.cell.defense
        if self.seconds is not None or task.is_clean or name not in self._pass:
            return self.first
        each = task.cost.total / max(1, len(task.active))
        draws = task.clean.draws if task.clean else 1
        whole = self._pass[name] * (task.shard.stop - task.shard.start)
        return max(LEAST, TIMES * whole * (each + 2 * draws * len(task.cells)))
