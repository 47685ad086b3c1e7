"""Tasks: the computations that fill a plan's cells, shard by shard.

A task is one computation on one shard; a minimum-norm attack's task serves all its epsilons.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bench.api import Attack, Cost
from bench.matrix.plan import source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.matrix.plan import Cell, Setting
    from bench.threat import Epsilon, Norm


@dataclass(frozen=True)
class Clean:
    """What a defense says of all unperturbed examples."""

    predictions: list[int]
    wrong: list[bool]
    draws: int = 1
    """More than 1 for a randomised defense."""
    wrong_draws: list[int] = field(default_factory=list)

    @property
    def right(self) -> list[int]:
        """The examples it gets right: those worth attacking."""
        return [i for i, wrong in enumerate(self.wrong) if not wrong]

    def errors_in(self, start: int, stop: int) -> list[int]:
        """The clean errors of a shard."""
        return [i for i in range(start, stop) if self.wrong[i]]


@dataclass(frozen=True)
class Task:
    """One computation on one shard: what a worker gets."""

    target: str
    attack: str
    """Canonical name, or `clean`."""
    shard: int
    start: int
    stop: int
    cells: tuple[tuple[str, Epsilon], ...]
    """(cell key, epsilon) of each cell that it fills, ascending."""
    seed: int
    norm: Norm
    cost: Cost
    """Upper estimate for the whole task."""
    active: tuple[int, ...] = field(default=(), repr=False)
    """The examples to attack, counted from the start of the run's data."""
    clean_predictions: tuple[int, ...] = field(default=(), repr=False)
    """One per example of the shard; empty for the clean task itself."""
    clean_draws: int = 1
    """How often the judge asks: more than once where the defense is randomised."""
    clean_wrong_draws: tuple[int, ...] = field(default=(), repr=False)
    """One per example of the shard, of so many draws."""
    source: str = ""
    """The defense that a transfer attack starts from."""
    surrogates: bool = False
    """Whether the attack gets the defense's surrogates."""
    clean_errors: tuple[int, ...] = field(default=(), repr=False)
    """The examples of the shard that are wrong unperturbed, counted as `active`."""

    @property
    def label(self) -> str:
        """What it is doing, for progress."""
        epsilons = "" if len(self.cells) != 1 else f" @ {self.cells[0][1]}"
        return f"{self.target} × {self.attack}{epsilons}"

    def missing(self, stored: Callable[[str, int], bool]) -> Task:
        """The same task for those of its cells whose shard is not stored yet.

        Args:
            stored: whether the outcomes of a cell key and shard are.
        """
        cells = tuple(cell for cell in self.cells if not stored(cell[0], self.shard))
        return replace(self, cells=cells)


def shard_seed(run_seed: int, attack: str, norm: Norm, epsilon: Epsilon | None, shard: int) -> int:
    """The seed of a shard: never of time, order or worker.

    It leaves the defense out, so that a defense and its twin meet the same random numbers.
    """
    exact = str(epsilon.exact) if epsilon else "minimum"
    text = f"{run_seed}|{attack}|{norm}|{exact}|{shard}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def tasks_for(
    cells: Sequence[Cell],
    setting: Setting,
    *,
    clean: dict[str, Clean],
    active: dict[str, list[int]],
) -> list[Task]:
    """The tasks that fill these cells, the most expensive first; equally expensive ones by shard.

    Args:
        cells: of one phase, none of them skipped.
        setting: the run's.
        clean: the predictions on the unperturbed examples, by defense.
        active: the examples to attack, by cell key; all where it is missing.
    """
    tasks = []
    for group in _groups(cells):
        first = group[0]
        attack, target = first.attack, first.target.name
        known = clean.get(target)
        fixed = attack is not None and attack.kind == "fixed"
        chosen = active.get(first.key, range(setting.n))
        for shard, (start, stop) in enumerate(setting.shards(chosen)):
            mine = tuple(i for i in chosen if start <= i < stop)
            tasks.append(
                Task(
                    target=target,
                    attack=first.attack_name,
                    shard=shard,
                    start=start,
                    stop=stop,
                    cells=tuple((cell.key, cell.epsilon) for cell in group),
                    seed=shard_seed(
                        setting.seed,
                        first.attack_name,
                        setting.norm,
                        first.epsilon if fixed else None,
                        shard,
                    ),
                    cost=estimate(attack, setting) * len(mine) + Cost(len(mine) * len(group)),
                    active=mine,
                    norm=setting.norm,
                    clean_draws=known.draws if known else 1,
                    clean_wrong_draws=tuple(known.wrong_draws[start:stop]) if known else (),
                    source=_source_name(first),
                    surrogates=attack is not None and attack.needs == "surrogates",
                    clean_predictions=tuple(known.predictions[start:stop]) if known else (),
                    clean_errors=tuple(known.errors_in(start, stop)) if known else (),
                )
            )
    return sorted(tasks, key=lambda task: (-task.cost.total, task.shard))


def estimate(attack: Attack | None, setting: Setting) -> Cost:
    """Passes per example of one computation, at most."""
    if attack is None:
        return Cost(0)
    return attack.cost(norm=setting.norm, shape=setting.shape, classes=setting.classes)


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that one computation fills: all epsilons of a minimum-norm attack, else one each."""
    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        shared = (
            cell.attack is not None
            and cell.attack.kind == "minimum"
            and cell.scope not in ("remaining", "check")
        )
        key = (cell.target.name, cell.attack_name, "" if shared else cell.epsilon.text)
        groups.setdefault(key, []).append(cell)
    return list(groups.values())


def _source_name(cell: Cell) -> str:
    if cell.attack is None or cell.attack.needs != "source":
        return ""
    return cell.target.sources[source_of(cell.attack)][0]


def planned_cost(cells: Sequence[Cell], setting: Setting) -> Cost:
    """Passes of all cells that can run, at most: what `--dry-run` prints."""
    runnable = [cell for cell in cells if not cell.skipped]
    computed = sum(
        (estimate(group[0].attack, setting) for group in _groups(runnable)), start=Cost(0)
    )
    return computed * setting.n + Cost(setting.n * len(runnable))
