"""Stopping at a number of passes, at the same place whatever the workers and interruptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.matrix.tasks import Task
    from bench.record.outcomes import Totals


class Budget:
    """The passes that a run may spend, forwards and backwards together.

    Tasks are admitted by their upper estimates and charged by what they took, stored ones as well:
    which tasks are admitted follows from the plan and from outcomes alone.

    Args:
        limit: None for no end.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.spent = 0

    def admit(self, tasks: Sequence[Task]) -> list[Task]:
        """Those that surely fit together in what is left, the cheapest first."""
        if self.limit is None:
            return list(tasks)
        room = float(self.limit - self.spent)
        fitting = []
        for task in sorted(tasks, key=lambda task: task.cost.total):
            if task.cost.total <= room:
                room -= task.cost.total
                fitting.append(task)
        return fitting

    def charge(self, totals: Totals) -> None:
        """Count what a task took."""
        self.spent += totals.forwards + totals.backwards

    @property
    def reason(self) -> str:
        """Why a cell is incomplete."""
        return (
            f"it could need more than is left of --budget {self.limit} ({self.spent:,} spent); the "
            "same command with a larger one continues"
        )
