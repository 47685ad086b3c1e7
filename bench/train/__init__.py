"""Training a defense: from its recipe to a checkpoint with its record.

Importing this imports torch.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bench import registry
from bench.errors import UsageError
from bench.models.ambient import plain_torch
from bench.models.checkpoints import (
    USER_FOLDER,
    CheckpointRecord,
    checkpoint_name,
    find_checkpoint,
    load_weights,
    missing_checkpoint_error,
    read_record,
    save_checkpoint,
    weights_digest,
)
from bench.models.weights import tensors_of
from bench.record.files import canonical_json, check_place, digest_of
from bench.record.provenance import device_name, version_of
from bench.train.fit import (
    Progress,
    Training,
    accuracy,
    derived_seed,
    fit,
    held_out_count,
    memory_format,
)
from bench.train.history import write_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from bench.api import Defense, Examples, Recipe
    from bench.data import Dataset
    from bench.train.history import Epoch

__all__ = ["Progress", "TrainConfig", "Trained", "train"]

#: Pixels from which a training uses all CPU threads.
LARGE = 32 * 32


@dataclass(frozen=True)
class TrainConfig:
    """How a defense is trained."""

    seed: int = 0
    """Fixes initialisation, order of examples, augmentation, and the recipe's randomness."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:0`; on CUDA in mixed precision (bfloat16)."""
    epochs: int | None = None
    """In place of the recipe's; its milestones move in proportion."""
    start: str | None = None
    """The defense, as written, whose weights for this data set the training starts from, in place
    of the recipe's; of the same network."""
    fresh: bool = False
    """Start anew, and write over a checkpoint that is there."""
    command: str = ""
    """Kept in the record."""


@dataclass(frozen=True)
class Trained:
    """What a training made, or found made."""

    path: Path
    record: CheckpointRecord
    seconds: float
    """Of this call; 0 where the checkpoint was already there."""
    curve: Sequence[Epoch] = ()
    """Empty where the checkpoint was already there."""
    best: Path | None = None
    """The checkpoint of the best epoch, where validation examples were held out; None where the
    checkpoint was already there."""
    start: Path | None = None
    """The checkpoint whose weights it started from; None for fresh ones."""


def train(
    defense: Defense,
    dataset: Dataset,
    config: TrainConfig | None = None,
    *,
    out: Path = USER_FOLDER,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train a defense and save its checkpoint, or go on where an interrupted call stopped.

    Args:
        defense: its recipe for the data set's family is used.
        dataset: the train split is trained on, the test split gives the clean accuracy.
        config: how; as `TrainConfig` has it where None.
        out: the folder of the checkpoint, and of the state while it is being made.
        on_progress: called twice a second at most, and after every epoch.

    Raises:
        UsageError: no recipe, a loss that is not finite, or a checkpoint of another training in
            the way.
        DataError: the data set cannot be read, or has no test split.
        CheckpointError: the weights that the recipe starts from are missing or damaged, or the
            state of an interrupted call is.
        StoreError: `out` cannot be written.
    """
    started = time.monotonic()
    config = config or TrainConfig()
    plan = _plan(defense, dataset, config, Path(out))
    check_place(plan.path)
    if config.fresh:
        plan.state.unlink(missing_ok=True)
    elif found := _already_there(plan.path, plan.identity):
        return Trained(plan.path, found, 0.0, start=plan.start)
    with plain_torch(_surroundings(plan)):
        # A training is known by the weights that came of it, and may be as fast as it can.
        torch.backends.cudnn.deterministic = False
        model = _model(plan)
        training = Training(model, plan.recipe, plan.examples, config.seed, config.device)
        history = fit(training, plan.state, on_progress)
        title = f"{defense.name} on {dataset.name}"
        write_curve(plan.path.parent / "curves", plan.path.stem, history.curve, title)
        best = None
        if history.best is not None:
            last = tensors_of(model)
            best = plan.path.parent / "best" / plan.path.name
            model.load_state_dict(history.best_weights)
            _save(plan, best, model, history.best.epoch)
            model.load_state_dict(last)
        # After the best one: where this checkpoint is, the training is done.
        record = _save(plan, plan.path, model, plan.recipe.schedule.epochs)
    plan.state.unlink(missing_ok=True)
    return Trained(plan.path, record, time.monotonic() - started, history.curve, best, plan.start)


@dataclass(frozen=True)
class _Plan:
    """A training before its first step."""

    defense: Defense
    config: TrainConfig
    recipe: Recipe
    examples: Examples
    test: Examples
    start: Path | None
    """The checkpoint whose weights it starts from."""
    identity: dict[str, Any]
    """What makes it this training, as the checkpoint's record has it."""
    path: Path
    """Of the checkpoint."""

    @property
    def kind(self) -> str:
        """Of the device: `cpu` or `cuda`."""
        return torch.device(self.config.device).type

    @property
    def state(self) -> Path:
        """The file of the state while it is under way."""
        digest = digest_of([self.identity, self.kind])[:12]
        return self.path.with_name(f".{self.path.stem}.{digest}.training")


def _plan(defense: Defense, dataset: Dataset, config: TrainConfig, out: Path) -> _Plan:
    """Everything that is settled before the first step."""
    family, recipe = _recipe_of(defense, dataset, config.epochs)
    recipe.start = config.start or recipe.start
    examples, test = dataset.load("train"), dataset.load("test")
    network = defense.network(shape=examples.shape)
    start = _start(recipe, network, dataset, config.seed, out)
    settings = json.loads(canonical_json(recipe.describe()))
    settings["validation"] = held_out_count(len(examples), recipe.schedule.validation)
    if start is not None and (origin := read_record(start)) is not None:
        settings["start_weights"] = origin.weights_digest
    digest = dataset.digest("train")
    identity = {
        "defense": defense.name,
        "version": defense.version,
        "network": network,
        "shape": examples.shape,
        "classes": examples.classes,
        "dataset": dataset.name,
        "family": family,
        "train_digest": digest,
        "recipe": settings,
        "seed": config.seed,
    }
    stem = checkpoint_name(defense.name, network, digest, config.seed)
    path = out / f"{stem}.safetensors"
    return _Plan(defense, config, recipe, examples, test, start, identity, path)


def _model(plan: _Plan) -> nn.Module:
    """The defense's network with the weights that the training begins with, on the device."""
    torch.manual_seed(derived_seed(plan.config.seed, "weights"))
    shape = plan.examples.shape
    model = plan.defense.build(
        network=plan.identity["network"], shape=shape, classes=plan.examples.classes
    )
    if plan.start is not None:
        load_weights(plan.start, model)
    device = plan.config.device
    return model.to(device).to(memory_format=memory_format(device, shape)).train()


def _save(plan: _Plan, path: Path, model: nn.Module, epochs: int) -> CheckpointRecord:
    """Write a checkpoint with its record, which is returned."""
    device = plan.config.device
    record = CheckpointRecord.model_validate(
        {
            **plan.identity,
            "epochs": epochs,
            "device": f"{plan.kind} ({device_name(device)})",
            "precision": "bfloat16" if plan.kind == "cuda" else "float32",
            "versions": {name: version_of(name) for name in ("winnow-bench", "torch")},
            "clean_accuracy": accuracy(model, plan.test, device),
            "n": len(plan.test),
            "weights_digest": weights_digest(model),
            "command": plan.config.command,
            "class_names": plan.examples.class_names,
        }
    )
    save_checkpoint(path, model, record)
    return record


def _recipe_of(defense: Defense, dataset: Dataset, epochs: int | None) -> tuple[str, Recipe]:
    """The family of the data, and how to train on it."""
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs has to be at least 1 (got {epochs})")
    family = dataset.family
    if family is None:
        raise UsageError(
            f"no training settings for images of the size in {dataset.name}; known sizes: "
            "1x8x8, 1x28x28, 3x32x32"
        )
    recipe = defense.recipe(family)
    if recipe is None:
        raise UsageError(
            f"Winnow cannot train {defense.name}: it has no recipe; give its weights with "
            f"--checkpoint {defense.name}=PATH"
        )
    if epochs is not None:
        recipe.schedule = recipe.schedule.with_epochs(epochs)
    return family, recipe


def _start(recipe: Recipe, network: str, dataset: Dataset, seed: int, out: Path) -> Path | None:
    """The weights that the recipe starts from: those of the same seed, where there are.

    Raises:
        CheckpointError: the defense that it names has no weights; with the command that makes them.
    """
    if recipe.start is None:
        return None
    name = registry.defenses.create(recipe.start).name
    digest = dataset.digest("train")
    path = out / f"{checkpoint_name(name, network, digest, seed)}.safetensors"
    found = path if path.exists() else find_checkpoint(name, network, digest)
    if found is None:
        raise missing_checkpoint_error(
            name, network, dataset.written or dataset.name, loadable=False
        )
    return found


def _already_there(path: Path, identity: dict[str, Any]) -> CheckpointRecord | None:
    """The record of a finished checkpoint, if it is of this very training.

    Raises:
        UsageError: it is of another one, which must not be written over.
        CheckpointError: its record cannot be read.
    """
    if not path.exists():
        return None
    record = read_record(path)
    if record is not None and record.version is None:
        identity = {**identity, "version": None}  # it is older than that
    if record is None or any(getattr(record, key) != value for key, value in identity.items()):
        raise UsageError(
            f"{path} is there already, from a training with other settings, or of another version "
            "of the defense's file; --fresh writes over it, and --out FOLDER keeps it"
        )
    return record


def _surroundings(plan: _Plan) -> str:
    """What `plain_torch` is told: one CPU thread for small images, which more only slow down."""
    _, height, width = plan.examples.shape
    if plan.kind == "cuda":
        return plan.config.device
    return "cpu" if height * width < LARGE else ""
