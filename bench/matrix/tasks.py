"""Tasks: the computations that fill a plan's cells, shard by shard.

A task is one computation on one shard. It serves several epsilons where a minimum-norm attack
searches all at once, or where an attack takes each row with an epsilon of its own.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from bench.api import Cost
from bench.record.schema import CLEAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
    row_seed: int = 0
    """Of random numbers that belong to a row, whatever its shard."""
    active: tuple[int, ...] = field(default=(), repr=False)
    """The examples to attack, counted from the start of the run's data."""
    rows: tuple[tuple[int, ...], ...] | None = field(default=None, repr=False)
    """Of each cell the examples to attack, where every one of them is a row with the cell's
    epsilon; None where all cells attack `active`, in one epsilon or none."""
    bracket: bool = False
    """Whether what survives one epsilon may be left out at smaller ones: its cells then follow
    from one another."""
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
        missing = [not stored(key, self.shard.number) for key, _ in self.cells]
        if self.bracket and any(missing):
            return self
        cells = tuple(itertools.compress(self.cells, missing))
        if self.rows is None:
            return replace(self, cells=cells)
        rows = tuple(itertools.compress(self.rows, missing))
        return replace(self, cells=cells, rows=rows, active=_union(rows))


def row_seed(run_seed: int, cell: Cell, norm: Norm) -> int:
    """The seed of what belongs to an example at an epsilon, whatever its shard and neighbours."""
    return _seed(f"{run_seed}|{cell.label}|{norm}|rows")


def shard_seed(run_seed: int, cell: Cell, norm: Norm, epsilon: Epsilon | None, shard: int) -> int:
    """The seed of a shard: never of time, order or worker.

    It leaves the defense out, so that a defense and its twin meet the same random numbers.
    """
    exact = str(epsilon.exact) if epsilon else "minimum"
    return _seed(f"{run_seed}|{cell.label}|{norm}|{exact}|{shard}")


def _seed(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _union(rows: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Every example that is named, ascending."""
    return tuple(sorted(set(itertools.chain.from_iterable(rows))))


def tasks_for(
    planned: Sequence[Planned],
    setting: Setting,
    *,
    clean: Mapping[str, Clean],
    blocks: Sequence[tuple[int, int]] | None = None,
) -> list[Task]:
    """The tasks that fill these cells, the most expensive first; equally expensive ones by shard.

    Args:
        planned: of one phase, each with its key and the examples that it attacks.
        setting: the run's.
        clean: the predictions on the unperturbed examples, by defense.
        blocks: the (start, stop) of each shard, where some are stored; None for what the setting
            says.
    """
    tasks = []
    for group in _groups(planned, clean):
        first = group[0]
        attack, cell = first.attack, first.cell
        known = clean.get(cell.defense)
        fixed = attack is not None and attack.kind == "fixed"
        of_each = [range(setting.n) if each.chosen is None else each.chosen for each in group]
        for number, (start, stop) in enumerate(blocks or setting.shards(_union(of_each))):
            mine = tuple(tuple(i for i in some if start <= i < stop) for some in of_each)
            active = _union(mine)
            searched = sum(map(len, mine)) if fixed else len(active)
            epsilon = first.epsilon if fixed else None
            tasks.append(
                Task(
                    cell=cell,
                    shard=Shard(number, start, stop),
                    cells=tuple((each.key, each.epsilon) for each in group),
                    seed=shard_seed(setting.seed, cell, setting.norm, epsilon, number),
                    row_seed=row_seed(setting.seed, cell, setting.norm),
                    norm=setting.norm,
                    cost=estimate(attack, setting) * searched + Cost(sum(map(len, mine))),
                    active=active,
                    rows=mine if attack is not None and attack.each_row else None,
                    bracket=first.beside is not None,
                    clean=known.part(start, stop) if known else None,
                )
            )
    return sorted(tasks, key=lambda task: (-task.cost.total, task.shard.number))


def estimate(attack: Attack | None, setting: Setting) -> Cost:
    """Passes per example of one computation, at most."""
    if attack is None:
        return Cost(0)
    return attack.cost(norm=setting.norm, shape=setting.shape, classes=setting.classes)


def _groups(planned: Sequence[Planned], clean: Mapping[str, Clean]) -> list[list[Planned]]:
    """Cells that one computation fills: all epsilons where they can be searched at once, else one.

    A randomised defense draws for a whole batch: that of one epsilon must not depend on others.
    """
    groups: dict[tuple[str, str, str, str], list[Planned]] = defaultdict(list)
    for each in planned:
        attack, cell = each.attack, each.cell
        shared = False
        if attack is not None and attack.kind == "minimum":
            shared = cell.scope not in ("remaining", "check")
        elif attack is not None and attack.each_row:
            known = clean.get(cell.defense)
            shared = known is None or known.draws == 1
        epsilon = "" if shared else cell.epsilon
        groups[cell.defense, cell.label, cell.scope, epsilon].append(each)
    return list(groups.values())


def planned_cost(planned: Sequence[Planned], setting: Setting) -> Cost:
    """Passes of all cells that can run, at most: what `--dry-run` prints."""
    runnable = [each for each in planned if each.why_not is None]
    computed = Cost(0)
    for group in _groups(runnable, {}):
        attack = group[0].attack
        times = 1 if attack is None or attack.kind == "minimum" else len(group)
        computed = computed + estimate(attack, setting) * times
    return computed * setting.n + Cost(setting.n * len(runnable))
