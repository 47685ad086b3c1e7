"""Training: a loop that runs a defense's recipe. Importing this imports torch.

Training a defense: from its recipe to a checkpoint with its record.
"""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bench import registry
from bench.errors import UsageError
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
from bench.record.files import canonical_json, digest_of
from bench.record.schema import device_name, version_of
from bench.train.fit import Progress, accuracy, derived_seed, fit, held_out_count, memory_format
from bench.train.history import write_curve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.api import Defense, Examples, Recipe
    from bench.data import Dataset
    from bench.train.history import Epoch

__all__ = ["Progress", "Trained", "train"]


#: Pixels from which a training uses all CPU threads.
LARGE = 32 * 32


_NOTED = ("winnow-bench", "torch")


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
    *,
    seed: int = 0,
    device: str = "cpu",
    out: Path = USER_FOLDER,
    epochs: int | None = None,
    start: str | None = None,
    fresh: bool = False,
    command: str = "",
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Trained:
    """Train a defense and save its checkpoint, or go on where an interrupted call stopped.

    Args:
        defense: its recipe for the data set's family is used.
        dataset: the train split is trained on, the test split gives the clean accuracy.
        seed: fixes initialisation, order of examples, augmentation, and the recipe's randomness.
        device: `cpu`, `cuda` or `cuda:0`; on CUDA in mixed precision (bfloat16).
        out: the folder of the checkpoint, and of the state while it is being made.
        epochs: in place of the recipe's; its milestones move in proportion.
        start: the defense, as written, whose weights for this data set the training starts from,
            in place of the recipe's; of the same network.
        fresh: start anew, and write over a checkpoint that is there.
        command: kept in the record.
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
    family, recipe = _recipe_of(defense, dataset, epochs)
    recipe.start = start or recipe.start
    examples, test = dataset.load("train"), dataset.load("test")
    network = defense.network(shape=examples.shape)
    begin = _start(recipe, network, dataset, seed, Path(out))
    settings = json.loads(canonical_json(recipe.describe()))
    settings["validation"] = held_out_count(len(examples), recipe.schedule.validation)
    if begin is not None and (origin := read_record(begin)) is not None:
        settings["start_weights"] = origin.weights_digest
    identity = {
        "defense": defense.name,
        "version": defense.version,
        "network": network,
        "shape": examples.shape,
        "classes": examples.classes,
        "dataset": dataset.name,
        "family": family,
        "train_digest": dataset.digest("train"),
        "recipe": settings,
        "seed": seed,
    }
    stem = checkpoint_name(defense.name, network, str(identity["train_digest"]), seed)
    path = Path(out) / f"{stem}.safetensors"
    kind = torch.device(device).type
    state = path.with_name(f".{stem}.{digest_of([identity, kind])[:12]}.training")
    if fresh:
        state.unlink(missing_ok=True)
    elif found := _already_there(path, identity):
        return Trained(path, found, 0.0, start=begin)

    cuda = [torch.device(device)] if kind == "cuda" else []
    with torch.random.fork_rng(devices=cuda), _threads(examples):
        torch.manual_seed(derived_seed(seed, "weights"))
        model = defense.build(network=network, shape=examples.shape, classes=examples.classes)
        if begin is not None:
            load_weights(begin, model)
        layout = memory_format(device, examples.shape)
        model = model.to(device).to(memory_format=layout).train()
        history = fit(model, recipe, examples, seed, device, state, on_progress)

        def save(place: Path, epochs: int) -> CheckpointRecord:
            record = CheckpointRecord.model_validate(
                {
                    **identity,
                    "epochs": epochs,
                    "device": f"{kind} ({device_name(device)})",
                    "precision": "bfloat16" if kind == "cuda" else "float32",
                    "versions": {name: version_of(name) for name in _NOTED},
                    "clean_accuracy": accuracy(model, test, device),
                    "n": len(test),
                    "weights_digest": weights_digest(model),
                    "command": command,
                }
            )
            save_checkpoint(place, model, record)
            return record

        write_curve(
            path.parent / "curves", stem, history.curve, f"{defense.name} on {dataset.name}"
        )
        best = None
        if history.best is not None:
            last = tensors_of(model)
            best = path.parent / "best" / path.name
            model.load_state_dict(history.best_weights)
            save(best, history.best.epoch)
            model.load_state_dict(last)
        # After the best one: where this checkpoint is, the training is done.
        record = save(path, recipe.schedule.epochs)
    state.unlink(missing_ok=True)
    return Trained(path, record, time.monotonic() - started, history.curve, best, begin)


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
            name, network, dataset.source or dataset.name, loadable=False
        )
    return found


def _already_there(path: Path, identity: dict[str, object]) -> CheckpointRecord | None:
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


@contextlib.contextmanager
def _threads(examples: Examples) -> Iterator[None]:
    """One CPU thread for small images, which more only slow down; afterwards as before."""
    before = torch.get_num_threads()
    _, height, width = examples.shape
    if height * width < LARGE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
