"""Training seeds as a dimension: the same run for the weights of each, and what they share.

One checkpoint says little about a defense: two ReLU networks that differ in their training seed
alone can differ significantly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bench import registry
from bench.data import open_dataset
from bench.errors import InputNotice, UsageError
from bench.matrix.fill import Silent
from bench.models.checkpoints import USER_FOLDER, checkpoint_name, find_checkpoint
from bench.report.tables import render_seeds
from bench.run import run
from bench.run.devices import resolve_devices
from bench.run.prepare import prepare
from bench.train import TrainConfig, train

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.matrix.fill import Observer
    from bench.run import Result
    from bench.run.config import RunConfig
    from bench.run.prepare import Prepared
    from bench.train import Progress


@dataclass(frozen=True)
class Seeded:
    """The results of one run for each training seed."""

    results: dict[int, Result]

    def to_markdown(self) -> str:
        """Mean and range over the seeds, and each seed's own figures."""
        return render_seeds({seed: result.summary for seed, result in self.results.items()})


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse what cannot be training seeds.

    Raises:
        UsageError: none, a negative one, or one twice.
    """
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        given = ",".join(map(str, seeds))
        raise UsageError(f"--seeds has to be different whole numbers from 0 up (got {given!r})")


class Watching(Protocol):
    """How a caller follows what goes on: a context for each training, and for each run."""

    def training(self, name: str, seed: int) -> AbstractContextManager[Callable[[Progress], None]]:
        """A defense is about to be trained, or found trained; gives what gets its progress."""

    def running(self, prepared: Prepared, seed: int) -> AbstractContextManager[Observer]:
        """A run is about to begin; gives its observer."""


class Unwatched:
    """Nobody follows."""

    def training(self, name: str, seed: int) -> AbstractContextManager[Callable[[Progress], None]]:
        """Progress goes nowhere."""
        return contextlib.nullcontext(lambda progress: None)

    def running(self, prepared: Prepared, seed: int) -> AbstractContextManager[Observer]:
        """A silent observer."""
        return contextlib.nullcontext(Silent())


def run_seeds(
    config: RunConfig,
    seeds: Sequence[int],
    watching: Watching | None = None,
    checkpoints: Path = USER_FOLDER,
) -> Seeded:
    """For each training seed: train what is missing, and evaluate its weights in a run of its own.

    Args:
        config: of every run, but for its checkpoints.
        seeds: of the trainings.
        watching: follows what goes on.
        checkpoints: the folder of the weights.

    Raises:
        UsageError: what `check_seeds`, `train` and `prepare` refuse; or checkpoints are named for
            single defenses as well.
        ModelError, StoreError: see `run`.
    """
    check_seeds(seeds)
    if config.checkpoints:
        raise UsageError("--checkpoint names weights, and --seeds finds its own: give one of them")
    watching = watching or Unwatched()
    results = {}
    for seed in seeds:
        paths = _trained(config, seed, watching, checkpoints)
        prepared = prepare(dataclasses.replace(config, checkpoints=paths))
        with watching.running(prepared, seed) as observer:
            results[seed] = run(prepared, observer)
    return Seeded(results)


def _trained(config: RunConfig, seed: int, watching: Watching, folder: Path) -> dict[str, Path]:
    """The weights of every defense of a run, and of its twins, for one training seed."""
    dataset = open_dataset(config.dataset)
    asked = [registry.defenses.create(name) for name in config.defenses]
    twins = [d.twin for d in asked if d.twin] if config.twins and config.examine else []
    shape, digest = dataset.choose("test", 1).shape, dataset.digest("train")
    paths = {}
    wanted = [*(d.name for d in asked), *twins]
    for name in dict.fromkeys(n for w in wanted for n in _with_starts(w, dataset.family)):
        defense = registry.defenses.create(name)
        network = defense.network(shape=shape)
        stem = checkpoint_name(name, network, digest, seed)
        paths[name] = folder / f"{stem}.safetensors"
        if paths[name].exists():
            continue  # whatever its settings: `train --epochs` may have made it
        with watching.training(name, seed) as on_progress:
            how = TrainConfig(seed, resolve_devices(config.device)[0], command=config.command)
            before = find_checkpoint(name, network, digest)
            train(defense, dataset, how, out=folder, on_progress=on_progress)
        after = find_checkpoint(name, network, digest)
        if before is not None and before.parent != USER_FOLDER and after != before:
            warnings.warn(
                f"{name}: from now on, runs without --seeds take {after}, and no longer the "
                "weights that come with Winnow; remove it to have these again",
                InputNotice,
                stacklevel=2,
            )
    return {name: paths[name] for name in wanted}


def _with_starts(name: str, family: str | None) -> list[str]:
    """A defense, and before it those whose weights its training starts from."""
    recipe = registry.defenses.create(name).recipe(family) if family else None
    if recipe is None or recipe.start is None:
        return [name]
    return [*_with_starts(registry.defenses.create(recipe.start).name, family), name]
