"""Sweeping epsilons: which examples each cell attacks, and in which order cells come.

`each` attacks every epsilon by itself. `bracket` spends nothing on what is known already:

- A row takes the headline epsilon first, and then the others upwards, without the examples that
  the same attack has broken within them.
- An attack of scope `remaining` takes its epsilons downwards: what anything broke within an
  epsilon is not attacked at it, and what survives one is not attacked below it. Each example thus
  costs it one survival, at its own largest epsilon, and the far cheaper breaks above.

That a break at norm d holds at every epsilon >= d is certain (DESIGN.md, law 2). That a survivor
survives below is inferred: where gradients mislead, success is not monotone. `bench.run.inquiry`
has inferences attacked after all, by cells of scope `check`.

A `Budget` stops at a number of passes, at the same place whatever the workers and interruptions.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from bench.matrix.plan import Cell, keyed
from bench.record.results import broken_within, critical_distances

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from bench.matrix.plan import Setting
    from bench.matrix.tasks import Clean, Task
    from bench.record.outcomes import Totals
    from bench.record.results import CellResult
    from bench.record.schema import Sweep
    from bench.threat import Epsilon


class Chosen(NamedTuple):
    """A cell with its key, and the examples that it attacks."""

    cell: Cell
    examples: list[int]


def rows(cells: Sequence[Cell], headline: Epsilon, sweep: Sweep) -> list[list[Cell]]:
    """Cells that attack all examples, in groups that wait for one another."""
    later = [cell for cell in cells if _skips(cell, sweep, headline)]
    first = [cell for cell in cells if not _skips(cell, sweep, headline)]
    upwards = sorted({cell.epsilon for cell in later}, key=float)
    groups = [first, *([c for c in later if c.epsilon == epsilon] for epsilon in upwards)]
    return [group for group in groups if group]


def leftovers(cells: Sequence[Cell], sweep: Sweep) -> list[list[Cell]]:
    """Cells of scope `remaining`, in groups that wait for one another."""
    if sweep == "each":
        return [list(cells)] if cells else []
    downwards = sorted({cell.epsilon for cell in cells}, key=float, reverse=True)
    return [[c for c in cells if c.epsilon == epsilon] for epsilon in downwards]


def choose(
    cell: Cell,
    clean: Clean,
    known: list[CellResult],
    setting: Setting,
    *,
    sweep: Sweep,
    headline: Epsilon,
    stored: Callable[[str, Sequence[int]], bool],
) -> Chosen:
    """The examples that a cell attacks, clean errors always left out.

    Args:
        cell: the next one.
        clean: the defense's predictions on unperturbed examples.
        known: what is finished of the defense, the clean predictions included.
        setting: the run's.
        sweep: how epsilons are gone over. A randomised defense is broken by degrees: it is
            attacked at each epsilon.
        headline: the epsilon that evidence is gathered at: its rows leave nothing out.
        stored: whether every shard of a cell key is, if the cell attacks the given examples: a row
            that was attacked whole stays whole.
    """
    if cell.chosen:
        left = [i for i in cell.chosen if not clean.wrong[i]]
        return Chosen(keyed(cell, setting, left), left)
    if clean.draws > 1:
        sweep = "each"
    mine = [r for r in known if r.cell.attack == cell.attack_name and r.cell.scope == cell.scope]
    if cell.scope == "remaining":
        broken = broken_within(critical_distances(known, setting.norm), cell.epsilon)
        above = _survivors(mine if sweep == "bracket" else [], cell.epsilon, setting.n)
        left = [i for i in clean.right if not broken[i] and not above[i]]
        inferred = any(above[i] and not broken[i] for i in clean.right)
        return Chosen(_sourced(keyed(cell, setting, left), inferred), left)
    if mine and _skips(cell, sweep, headline) and not stored(cell.key, clean.right):
        broken = broken_within(critical_distances(mine, setting.norm), cell.epsilon)
        left = [i for i in clean.right if not broken[i]]
        if len(left) < len(clean.right):
            return Chosen(_sourced(keyed(cell, setting, left), inferred=True), left)
    return Chosen(cell, clean.right)


def _skips(cell: Cell, sweep: Sweep, headline: Epsilon) -> bool:
    """Whether a row may leave out what its attack broke at another epsilon.

    A minimum-norm attack serves all epsilons at once.
    """
    return (
        sweep == "bracket"
        and cell.attack is not None
        and cell.attack.kind == "fixed"
        and cell.scope == "all"
        and cell.epsilon != headline
    )


def _survivors(mine: Sequence[CellResult], epsilon: Epsilon, n: int) -> np.ndarray:
    """The examples that an attack left unbroken at a larger epsilon; bool, (n,)."""
    import numpy as np

    survived: np.ndarray = np.zeros(n, dtype=bool)
    for result in mine:
        if float(result.epsilon) > float(epsilon):
            survived |= result.survived
    return survived


def _sourced(cell: Cell, inferred: bool) -> Cell:
    return dataclasses.replace(cell, source="inferred" if inferred else "attacked")


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
