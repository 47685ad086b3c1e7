"""Sweeping epsilons: which examples each cell attacks, and in which order cells come.

`each` attacks every epsilon by itself. `bracket` spends nothing on what is known already:

- An attack that goes by gradients and takes all epsilons in one batch does so: rows are whole.
- Any other row takes the headline epsilon first, and then the others, upwards or in one batch,
  without the examples that the same attack has broken within them; one that does not go by
  gradients leaves out as well what survived it at a larger one.
- An attack of scope `remaining` takes what nothing broke within an epsilon, and what survives one
  is not attacked below it: downwards, or by itself where it takes all epsilons in one batch. Each
  example thus costs it one survival, at its own largest epsilon, and the far cheaper breaks above.

That a break at norm d holds at every epsilon >= d is certain (DESIGN.md, law 2). That a survivor
survives below is inferred: where gradients mislead, success is not monotone. `bench.run.inquiry`
has inferences attacked after all, by cells of scope `check`.

A `Budget` stops at a number of passes, at the same place whatever the workers and interruptions.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.matrix.plan import WhyNot
from bench.record.results import broken_within, critical_distances

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from bench.api import Attack
    from bench.matrix.plan import Planned, Setting
    from bench.matrix.tasks import Clean, Task
    from bench.record.outcomes import Totals
    from bench.record.results import CellResult
    from bench.record.schema import Sweep
    from bench.threat import Epsilon


def rows(planned: Sequence[Planned], headline: Epsilon, sweep: Sweep) -> list[list[Planned]]:
    """Cells that attack all examples, in groups that wait for one another."""
    later = [each for each in planned if _skips(each, sweep, headline)]
    first = [each for each in planned if not _skips(each, sweep, headline)]
    together, others = _by_batch(later)
    upwards = sorted({each.epsilon for each in others}, key=float)
    beside, *further = [[p for p in others if p.epsilon == e] for e in upwards] or [[]]
    return [group for group in (first, together + beside, *further) if group]


def leftovers(planned: Sequence[Planned], sweep: Sweep) -> list[list[Planned]]:
    """Cells of scope `remaining`, in groups that wait for one another."""
    if sweep == "each":
        return [list(planned)] if planned else []
    together, others = _by_batch(planned)
    downwards = sorted({each.epsilon for each in others}, key=float, reverse=True)
    groups = [together, *([p for p in others if p.epsilon == e] for e in downwards)]
    return [group for group in groups if group]


def _by_batch(planned: Sequence[Planned]) -> tuple[list[Planned], list[Planned]]:
    """Those of attacks that take all epsilons in one batch, and the others."""
    parts: tuple[list[Planned], list[Planned]] = [], []
    for each in planned:
        parts[each.attack is None or not each.attack.each_row].append(each)
    return parts


@dataclass(frozen=True)
class Chooser:
    """Chooses the examples that cells attack, clean errors always left out."""

    setting: Setting
    sweep: Sweep
    """How epsilons are gone over. A randomised defense is broken by degrees: it is attacked at each
    epsilon."""
    headline: Epsilon
    """The epsilon that evidence is gathered at: its rows leave nothing out."""
    stored: Callable[[str, Sequence[int]], bool]
    """Whether every shard of a cell key is, if the cell attacks the given examples: a row that was
    attacked whole stays whole."""

    def together(self, chosen: Sequence[Planned], clean: Mapping[str, Clean]) -> list[Planned]:
        """The cells of a phase, in which attacks of scope `remaining` go over epsilons themselves.

        Args:
            chosen: each with the examples that it attacks.
            clean: predictions on unperturbed examples, by defense.
        """
        groups: dict[tuple[str, str], list[Planned]] = defaultdict(list)
        for each in chosen:
            own = each.attack is not None and each.attack.each_row
            sweeps = self.sweep == "bracket" and clean[each.cell.defense].draws == 1
            if own and sweeps and each.cell.scope == "remaining":
                groups[each.cell.defense, each.cell.label].append(each)
        replaced = {}
        for group in groups.values():
            if len(group) > 1:
                beside = {str(each.epsilon.exact): each.chosen or () for each in group}
                for each in group:
                    swept = replace(each, beside=beside, inferred=True)
                    replaced[id(each)] = swept.keyed(self.setting, each.chosen)
        return [replaced.get(id(each), each) for each in chosen]

    def choose(self, planned: Planned, clean: Clean, known: list[CellResult]) -> Planned:
        """The cell with its key and the examples that it attacks.

        Args:
            planned: the next one.
            clean: the defense's predictions on unperturbed examples.
            known: what is finished of the defense, the clean predictions included.
        """
        cell, epsilon, norm = planned.cell, planned.epsilon, self.setting.norm
        if planned.chosen is not None:
            return self._keyed(planned, [i for i in planned.chosen if not clean.wrong[i]])
        sweep = self.sweep if clean.draws == 1 else "each"
        mine = [r for r in known if (r.cell.attack, r.cell.repeat) == (cell.attack, cell.repeat)]
        mine = [r for r in mine if r.cell.scope == cell.scope]
        if cell.scope == "remaining":
            broken = broken_within(critical_distances(known, norm), epsilon)
            alone = planned.attack is None or not planned.attack.each_row
            searched = mine if alone and sweep == "bracket" else []
            above = _survivors(searched, epsilon, self.setting.n)
            left = [i for i in clean.right if not broken[i] and not above[i]]
            inferred = any(above[i] and not broken[i] for i in clean.right)
            return self._keyed(planned, left, inferred=inferred)
        skips = mine and _skips(planned, sweep, self.headline)
        if skips and not self.stored(planned.key, clean.right):
            broken = broken_within(critical_distances(mine, norm), epsilon)
            searched = mine if planned.attack and by_scores(planned.attack) else []
            above = _survivors(searched, epsilon, self.setting.n)
            left = [i for i in clean.right if not broken[i] and not above[i]]
            if len(left) < len(clean.right):
                return self._keyed(planned, left, inferred=True)
        return replace(planned, chosen=tuple(clean.right))

    def _keyed(self, planned: Planned, left: list[int], *, inferred: bool = False) -> Planned:
        keyed = planned.keyed(self.setting, left)
        return replace(keyed, chosen=tuple(left), inferred=inferred)


def _skips(planned: Planned, sweep: Sweep, headline: Epsilon) -> bool:
    """Whether a row may leave out what its attack broke at another epsilon.

    A minimum-norm attack serves all epsilons at once.
    """
    return (
        sweep == "bracket"
        and planned.attack is not None
        and planned.attack.kind == "fixed"
        and planned.cell.scope == "all"
        and planned.epsilon != headline
        and (by_scores(planned.attack) or not planned.attack.each_row)
    )


def by_scores(attack: Attack) -> bool:
    """Whether a search goes by scores, at least in part: gradients that mislead do not end it."""
    return attack.goes_by() in ("scores", "mixed", "noise")


def _survivors(mine: Sequence[CellResult], epsilon: Epsilon, n: int) -> np.ndarray:
    """The examples that an attack left unbroken at a larger epsilon; bool, (n,)."""
    import numpy as np

    survived: np.ndarray = np.zeros(n, dtype=bool)
    for result in mine:
        if float(result.epsilon) > float(epsilon):
            survived |= result.survived
    return survived


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
    def why(self) -> WhyNot:
        """Why a cell is incomplete."""
        return WhyNot(
            "budget",
            f"it could need more than is left of --budget {self.limit} ({self.spent:,} spent); the "
            "same command with a larger one continues",
        )
