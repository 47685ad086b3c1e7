"""Where a defense's weights come from: a named file, its own, a checkpoint, or another's."""

from __future__ import annotations

import shlex
import warnings
from typing import TYPE_CHECKING

from bench import registry
from bench.api import Weights
from bench.data import open_dataset
from bench.errors import PluginWarning
from bench.record import checkpoints

if TYPE_CHECKING:
    from pathlib import Path

    from bench.api import Defense, Examples


def weights_for(
    defense: Defense, network: str, source: str, examples: Examples, path: Path | None
) -> Weights:
    """The file that the user named, or what the defense brings, or a checkpoint of Winnow's.

    Args:
        defense: the plugin.
        network: its architecture.
        source: the data set as written; its training data identify checkpoints.
        examples: what is evaluated.
        path: `--checkpoint`.

    Raises:
        CheckpointError: there are none.
        UsageError: those that it brings are made for other data.
    """
    if path is None:
        own = defense.weights(network=network, shape=examples.shape, classes=examples.classes)
        if own is not None:
            return own
        path = _checkpoint_of(defense, network, source)
    return Weights(path.name, (path,))


def _checkpoint_of(defense: Defense, network: str, source: str) -> Path:
    """The checkpoint of a defense: its own, or that of the defense whose weights it takes.

    Warns where what is evaluated is not what was trained.

    Raises:
        CheckpointError: there is neither.
    """
    command = f"python -m bench train --defense {shlex.quote(defense.name)}"
    digest = open_dataset(source).digest("train")
    path = checkpoints.find_checkpoint(defense.name, network, digest)
    if path is not None:
        record = checkpoints.read_record(path)
        if record is not None and record.version not in (None, defense.version):
            warnings.warn(
                f"{defense.name} has changed since its weights were trained ({path.name}); "
                f"to train them again: {command} --dataset {shlex.quote(source)} --fresh",
                PluginWarning,
                stacklevel=2,
            )
        return path
    if defense.weights_of is not None:
        other = registry.defenses.create(defense.weights_of).name
        path = checkpoints.find_checkpoint(other, network, digest)
    if path is None:
        raise checkpoints.missing_checkpoint_error(defense.name, network, source)
    warnings.warn(
        f"{defense.name} has no weights of its own and is evaluated with those of {other} "
        f"({path.name}); to train it: {command} --dataset {shlex.quote(source)}",
        PluginWarning,
        stacklevel=2,
    )
    return path
