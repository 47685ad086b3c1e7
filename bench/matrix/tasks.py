"""Tasks: the computations that fill a plan's cells, shard by shard.

A task is one computation on one shard; a minimum-norm attack's task serves all its epsilons.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from bench.api import Cost
from bench.record.schema import CLEAN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

    from bench.api import Attack
    from bench.matrix.plan import Planned, Setting
    from bench.record.schema import Cell
    from bench.threat import Epsilon, Norm


@dataclass(frozen=True)
class Clean:
    """What a defense says of unperturbed examples: of all, or of those of a shard."""

    predictions: tuple[int, ...]
    wrong: tuple[bool, ...]
    draws: int = 1
    """How often the judge asks: more than once where the defense is randomised."""
    wrong_draws: tuple[int, ...] = ()
    """One per example, of so many draws."""

    @classmethod
    def of(cls, frame: pd.DataFrame) -> Clean:
        """What the outcomes of the clean predictions say."""
        return cls(
            tuple(frame["clean_prediction"].tolist()),
            tuple(frame["broken"].tolist()),
            int(frame["draws"].max()),
            tuple(frame["wrong_draws"].tolist()),
        )

    @property
    def right(self) -> list[int]:
        """The examples it gets right: those worth attacking."""
        return [i for i, wrong in enumerate(self.wrong) if not wrong]

    def part(self, start: int, stop: int) -> Clean:
        """Those of a shard."""
        part = slice(start, stop)
        return replace(
            self,
            predictions=self.predictions[part],
            wrong=self.wrong[part],
            wrong_draws=self.wrong_draws[part],
        )


class Shard(NamedTuple):
    """A block of examples, counted from the start of the run's data."""

    number: int
    start: int
    stop: int


@dataclass(frozen=True)
class Task:
    """One computation on one shard: what a worker gets."""

    cell: Cell
    """The first of those that it fills."""
    shard: Shard
    cells: tuple[tuple[str, Epsilon], ...]
    """(cell key, epsilon) of each cell that it fills, ascending; none where it asks only how the
    model answers."""
    seed: int
    norm: Norm
    cost: Cost
    """Upper estimate for the whole task."""
    active: tuple[int, ...] = field(default=(), repr=False)
    """The examples to attack, counted from the start of the run's data."""
    clean: Clean | None = field(default=None, repr=False)
    """What is known of the shard's examples; None for the clean task itself."""

    @property
    def is_clean(self) -> bool:
        """Whether it asks for the predictions on unperturbed examples."""
        return self.cell.attack == CLEAN

    @property
    def label(self) -> str:
        """What it is doing, for progress."""
        epsilons = "" if len(self.cells) != 1 else f" @ {self.cells[0][1]}"
        return f"{self.cell.defense} × {self.cell.label}{epsilons}"

    def missing(self, stored: Callable[[str, int], bool]) -> Task:
        """The same task for those of its cells whose shard is not stored yet.

        Args:
            stored: whether the outcomes of a cell key and shard are.
        """
        cells = tuple(cell for cell in self.cells if not stored(cell[0], self.shard.number))
        return replace(self, cells=cells)


def shard_seed(run_seed: int, cell: Cell, norm: Norm, epsilon: Epsilon | None, shard: int) -> int:
    """The seed of a shard: never of time, order or worker.

    It leaves the defense out, so that a defense and its twin meet the same random numbers.
    """
    exact = str(epsilon.exact) if epsilon else "minimum"
    text = f"{run_seed}|{cell.label}|{norm}|{exact}|{shard}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def tasks_for(
    planned: Sequence[Planned],
    setting: Setting,
    *,
    clean: Mapping[str, Clean],
) -> list[Task]:
    """The tasks that fill these cells, the most expensive first; equally expensive ones by shard.

    Args:
        planned: of one phase, each with its key and the examples that it attacks.
        setting: the run's.
        clean: the predictions on the unperturbed examples, by defense.
    """
    tasks = []
    for group in _groups(planned):
        first = group[0]
        attack, cell = first.attack, first.cell
        known = clean.get(cell.defense)
        fixed = attack is not None and attack.kind == "fixed"
        chosen = range(setting.n) if first.chosen is None else first.chosen
        for number, (start, stop) in enumerate(setting.shards(chosen)):
            mine = tuple(i for i in chosen if start <= i < stop)
            epsilon = first.epsilon if fixed else None
            tasks.append(
                Task(
                    cell=cell,
                    shard=Shard(number, start, stop),
                    cells=tuple((each.key, each.epsilon) for each in group),
                    seed=shard_seed(setting.seed, cell, setting.norm, epsilon, number),
                    norm=setting.norm,
                    cost=estimate(attack, setting) * len(mine) + Cost(len(mine) * len(group)),
                    active=mine,
                    clean=known.part(start, stop) if known else None,
                )
            )
    return sorted(tasks, key=lambda task: (-task.cost.total, task.shard.number))


def estimate(attack: Attack | None, setting: Setting) -> Cost:
    """Passes per example of one computation, at most."""
    if attack is None:
        return Cost(0)
    return attack.cost(norm=setting.norm, shape=setting.shape, classes=setting.classes)


def _groups(planned: Sequence[Planned]) -> list[list[Planned]]:
    """Cells that one computation fills: all epsilons of a minimum-norm attack, else one each."""
    groups: dict[tuple[str, str, str], list[Planned]] = defaultdict(list)
    for each in planned:
        shared = (
            each.attack is not None
            and each.attack.kind == "minimum"
            and each.cell.scope not in ("remaining", "check")
        )
        epsilon = "" if shared else each.cell.epsilon
        groups[each.cell.defense, each.cell.label, epsilon].append(each)
    return list(groups.values())


def planned_cost(planned: Sequence[Planned], setting: Setting) -> Cost:
    """Passes of all cells that can run, at most: what `--dry-run` prints."""
    runnable = [each for each in planned if each.why_not is None]
    computed = sum(
        (estimate(group[0].attack, setting) for group in _groups(runnable)), start=Cost(0)
    )
    return computed * setting.n + Cost(setting.n * len(runnable))
