"""From the names of defenses to models: networks, weights, digests."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import registry
from bench.data import open_dataset
from bench.errors import CheckpointError, ModelError, UsageError
from bench.matrix.plan import Target
from bench.record import checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from bench.api import Examples
    from bench.matrix.work import Loader
    from bench.record.schema import DefenseRecord


@dataclass(frozen=True)
class Contender:
    """A defense ready to be evaluated."""

    target: Target
    loader: Loader
    record: DefenseRecord


def resolve(
    names: Sequence[str], source: str, examples: Examples, given: Mapping[str, Path]
) -> list[Contender]:
    """Find network and weights of each defense.

    Args:
        names: as written; each is made canonical.
        source: the data set as written; its training data identify committed weights.
        examples: what is evaluated.
        given: `--checkpoint`, by name as written.

    Raises:
        UsageError: an unknown name, or a `--checkpoint` for a defense that is not evaluated.
        CheckpointError: no weights, or weights of another architecture.
    """
    wanted = {registry.defenses.create(name).name: None for name in names}
    paths = {registry.defenses.create(name).name: path for name, path in given.items()}
    unused = sorted(paths.keys() - wanted.keys())
    if unused:
        raise UsageError(
            f"--checkpoint names {', '.join(unused)}, which is not among the defenses of this run "
            f"({', '.join(wanted)})"
        )
    return [_contender(name, source, examples, paths.get(name)) for name in wanted]


def _contender(name: str, source: str, examples: Examples, path: Path | None) -> Contender:
    from bench.record.schema import DefenseRecord

    defense = registry.defenses.create(name)
    network = defense.network(shape=examples.shape)
    if path is None:
        path = checkpoints.find_checkpoint(name, network, open_dataset(source).digest("train"))
    if path is None:
        raise checkpoints.missing_checkpoint_error(name, network, source)
    loader = functools.partial(load, name, network, examples.shape, examples.classes, path)
    digest = checkpoints.weights_digest(loader())
    target = Target(
        name,
        {
            "network": network,
            "weights": digest,
            "version": defense.version,
            "parameters": defense.parameters,
        },
    )
    record = DefenseRecord(
        key=target.key,
        network=network,
        weights_digest=digest,
        checkpoint=path.name,
        twin=defense.twin,
    )
    return Contender(target, loader, record)


def load(
    name: str, network: str, shape: tuple[int, int, int], classes: int, path: Path
) -> nn.Module:
    """A defense's module with its weights, on the CPU, in eval mode.

    Raises:
        CheckpointError: the file is missing, foreign, or of another architecture.
        ModelError: the plugin did not build a module.
    """
    import torch

    if not path.is_file():
        raise CheckpointError(f"no checkpoint at {path} (for {name})")
    defense = registry.defenses.create(name)
    module = defense.build(network=network, shape=shape, classes=classes)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{name}: build() returned {type(module).__name__}, not an nn.Module")
    checkpoints.load_weights(path, module)
    return module.eval()
