"""Checkpoints: weights as safetensors, and beside them a record of where they come from.

Where a defense's weights come from: a named file, its own, a checkpoint, or another's.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError, field_validator

from bench import registry
from bench.api import Weights
from bench.data import open_dataset
from bench.errors import CheckpointError, InputNotice, PluginWarning
from bench.models import checkpoints
from bench.models.claims import check_classes, check_normalisation, recorded_classes
from bench.models.state_dicts import part_of, state_dict_for
from bench.models.weights import (
    file_and_part,
    first_line,
    read_content,
    tensors_of,
    weights_digest,
)
from bench.record.files import write_bytes, write_json
from bench.record.schema import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from bench.api import Defense, Examples

__all__ = [
    "CheckpointRecord",
    "checkpoint_folders",
    "checkpoint_name",
    "find_checkpoint",
    "load_weights",
    "missing_checkpoint_error",
    "read_record",
    "save_checkpoint",
    "weights_digest",
]


SCHEMA_VERSION = 1


#: Where training writes, under the current directory.
USER_FOLDER = Path("results/checkpoints")


class CheckpointRecord(Record):
    """Where the weights of a checkpoint come from: the `.json` file beside them."""

    schema_version: int = SCHEMA_VERSION
    defense: str
    """Canonical name."""
    network: str
    """The architecture, as in tables."""
    shape: tuple[int, int, int]
    """(C, H, W) of one input."""
    classes: int
    """The number of logits."""
    dataset: str
    """What it was trained on, as in tables."""
    family: str
    """The family of data sets that set the recipe's defaults."""
    train_digest: str
    """Identity of the training data."""
    recipe: dict[str, Any]
    """Every setting of the training."""
    seed: int
    epochs: int
    """How many were done."""
    device: str
    """`cpu` or `cuda`, and the processor's name."""
    precision: str
    """Of the training: `float32`, or `bfloat16` for mixed precision."""
    versions: dict[str, str]
    """Distributions and their versions."""
    clean_accuracy: float
    """On the whole test split, in float32; a fraction of 1."""
    n: int
    """The number of test examples."""
    weights_digest: str
    """SHA-256 over names, dtypes, shapes and bytes of the weights."""
    command: str
    """What makes it again."""
    version: int | None = None
    """Of the defense when it was trained; None in records from before it was kept."""
    class_names: tuple[str, ...] | None = None
    """Of the training data; None in records from before they were kept."""

    @field_validator("recipe", mode="before")
    @classmethod
    def _as_read_back(cls, value: Any) -> Any:
        """Tuples become lists, so that a record equals itself read from its file."""
        return json.loads(json.dumps(value))


def checkpoint_name(defense: str, network: str, train_digest: str, seed: int = 0) -> str:
    """The file's name without its ending; safe in any folder, whatever the defense is called."""
    slug = re.sub(r"[^a-z0-9.]+", "-", f"{defense}-{network}".lower()).strip("-.")[:100]
    digest = re.sub(r"[^0-9a-f]", "", train_digest.lower())[:8]
    return f"{slug}-{digest}" + (f"-seed{seed}" if seed else "")


def save_checkpoint(path: Path, module: nn.Module, record: CheckpointRecord) -> None:
    """Write weights to `path` (`….safetensors`) and the record beside it, each atomically.

    Raises:
        StoreError: the folder cannot be written.
    """
    from safetensors.torch import save

    data: bytes = save(tensors_of(module), metadata={"format": "pt"})
    write_bytes(path, data)
    write_json(record_path(path), record.model_dump(mode="json"))


def record_path(path: Path) -> Path:
    """Where the record of a checkpoint lies."""
    return path.with_suffix(".json")


def read_record(path: Path) -> CheckpointRecord | None:
    """The record beside a checkpoint; None where there is no such file, or it is another's.

    Raises:
        CheckpointError: it cannot be read, or is no whole record.
    """
    place = record_path(path)
    try:
        content = json.loads(place.read_bytes())
        if isinstance(content, dict) and "weights_digest" not in content:
            return None  # such as the settings of whoever trained it
        record = CheckpointRecord.model_validate(content)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointError(f"cannot read {place}: {error.strerror or error}") from error
    except (ValueError, ValidationError) as error:
        raise CheckpointError(
            f"{place} is no record of a checkpoint: {first_line(error)}; restore it, or move it "
            "away where it is none"
        ) from error
    if record.schema_version > SCHEMA_VERSION:
        raise CheckpointError(
            f"{place} has schema version {record.schema_version}, and this Winnow reads up to "
            f"{SCHEMA_VERSION}; upgrade winnow-bench"
        )
    return record


def load_weights(
    path: Path,
    module: nn.Module,
    adapt: Callable[[Sequence[Any], nn.Module], Any] | None = None,
    further: Sequence[Path] = (),
) -> None:
    """Load a checkpoint into a module of the same architecture.

    Args:
        path: safetensors, or a torch file holding a `state_dict`, bare or under whatever key, its
            names with or without prefixes that all of them have; `FILE#KEY` where there are
            several.
        module: changed only if everything fits.
        adapt: from what the files hold to the `state_dict`, as `Defense.adapt`.
        further: the other files, where one checkpoint is in several.

    Raises:
        CheckpointError: no such file, not a checkpoint, another architecture, weights that are
            not finite, or weights that are not those of the record beside the file.
    """
    path, part = file_and_part(path)
    contents = [read_content(file) for file in (path, *further)]
    chosen = [part_of(path, contents[0], part), *contents[1:]]
    weights = state_dict_for(module, path, adapt(chosen, module) if adapt else chosen[0])
    record = read_record(path)
    module.load_state_dict(weights, strict=True)
    if record is not None and weights_digest(module) != record.weights_digest:
        raise CheckpointError(
            f"{path} is not the file that {record_path(path).name} describes: its weights have "
            "another digest; restore both, or train again with --fresh"
        )
    check_normalisation(path, contents[0], module)


def checkpoint_folders() -> list[Path]:
    """Where checkpoints are looked for: those that come with Winnow, then the user's own."""
    committed = Path(str(importlib.resources.files("bench.defenses").joinpath("checkpoints")))
    return [committed, USER_FOLDER]


def find_checkpoint(defense: str, network: str, train_digest: str) -> Path | None:
    """The weights of a defense for a data set, or None.

    The user's own win over those that come with Winnow, and within a folder the lowest seed.
    Records that cannot be read are passed over with a warning.

    Args:
        defense: canonical name.
        network: the architecture.
        train_digest: identity of the training data.
    """
    for folder in reversed(checkpoint_folders()):
        fitting: list[tuple[int, Path]] = []
        for path in sorted(folder.glob("*.safetensors")):
            try:
                record = read_record(path)
            except CheckpointError as error:
                warnings.warn(f"a checkpoint is passed over: {error}", stacklevel=2)
                continue
            if record and (defense, network, train_digest) == (
                record.defense,
                record.network,
                record.train_digest,
            ):
                fitting.append((record.seed, path))
        if fitting:
            return min(fitting)[1]
    return None


def missing_checkpoint_error(
    defense: str, network: str, dataset: str, *, loadable: bool = True
) -> CheckpointError:
    """The error for a defense without weights; it names the command that makes them.

    Args:
        defense: canonical name.
        network: the architecture.
        dataset: as written on the command line.
        loadable: whether the command at hand takes weights by `--checkpoint`.
    """
    file = f" (or name a file: --checkpoint {shlex.quote(f'{defense}=PATH')})" if loadable else ""
    command = f"python -m bench train --defense {shlex.quote(defense)}"
    return CheckpointError(
        f"there are no weights of {defense} ({network}) trained on {dataset}; make them with: "
        f"{command} --dataset {shlex.quote(dataset)}{file}"
    )


def weights_for(
    defense: Defense, network: str, dataset: str, examples: Examples, path: Path | None
) -> Weights:
    """The file that the user named, or what the defense brings, or a checkpoint of Winnow's.

    Args:
        defense: the plugin.
        network: its architecture.
        dataset: the data set as written; its training data identify checkpoints.
        examples: what is evaluated.
        path: `--checkpoint`.

    Raises:
        CheckpointError: there are none, or their classes are not those of the data.
        UsageError: those that it brings are made for other data.
    """
    named = path is not None
    if path is None:
        own = defense.weights(network=network, shape=examples.shape, classes=examples.classes)
        if own is not None:
            check_classes(own.origin, own.class_names, examples.class_names)
            return own
        path = _checkpoint_of(defense, network, dataset)
    file, _ = file_and_part(path)
    if file.is_file():
        record = read_record(file)
        names = record.class_names if record else recorded_classes(read_content(file))
        check_classes(path.name, names, examples.class_names)
        if named and record is not None and record.defense != defense.name:
            warnings.warn(
                f"{path.name} holds weights of {record.defense}, by the record beside it, and "
                f"{defense.name} is evaluated with them",
                InputNotice,
                stacklevel=2,
            )
    return Weights(path.name, (path,))


def _checkpoint_of(defense: Defense, network: str, dataset: str) -> Path:
    """The checkpoint of a defense: its own, or that of the defense whose weights it takes.

    Warns where what is evaluated is not what was trained.

    Raises:
        CheckpointError: there is neither.
    """
    command = f"python -m bench train --defense {shlex.quote(defense.name)}"
    digest = open_dataset(dataset).digest("train")
    path = checkpoints.find_checkpoint(defense.name, network, digest)
    if path is not None:
        record = checkpoints.read_record(path)
        if record is not None and record.version not in (None, defense.version):
            warnings.warn(
                f"{defense.name} has changed since its weights were trained ({path.name}); "
                f"to train them again: {command} --dataset {shlex.quote(dataset)} --fresh",
                PluginWarning,
                stacklevel=2,
            )
        return path
    if defense.weights_of is not None:
        other = registry.defenses.create(defense.weights_of).name
        path = checkpoints.find_checkpoint(other, network, digest)
    if path is None:
        raise checkpoints.missing_checkpoint_error(defense.name, network, dataset)
    warnings.warn(
        f"{defense.name} has no weights of its own and is evaluated with those of {other} "
        f"({path.name}); to train it: {command} --dataset {shlex.quote(dataset)}",
        PluginWarning,
        stacklevel=2,
    )
    return path
