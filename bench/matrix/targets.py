"""From the names of defenses to models: networks, weights, digests."""

from __future__ import annotations

import functools
import shlex
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from bench import registry
from bench.data import open_dataset
from bench.errors import CheckpointError, ModelError, PluginWarning, UsageError
from bench.grammar import Written, parameters_of
from bench.matrix.plan import Target
from bench.record import checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from bench.api import Defense, Examples
    from bench.matrix.work import Loader
    from bench.record.schema import DefenseRecord


@dataclass(frozen=True)
class Contender:
    """A defense ready to be evaluated."""

    target: Target
    loader: Loader
    record: DefenseRecord
    surrogates: Callable[[], dict[str, nn.Module]] | None = None
    """Makes the surrogates that the defense declares, weights loaded."""
    control: bool = False
    """Here as somebody's twin, without being asked for."""


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
        path = _found_weights(defense, network, source)
    place = (name, network, examples.shape, examples.classes, path)
    loader = functools.partial(load, *place)
    digest = checkpoints.weights_digest(loader())
    identity = {
        "network": network,
        "weights": digest,
        "version": defense.version,
        "parameters": defense.parameters,
    }
    declared = defense.surrogates(network=network, shape=examples.shape, classes=examples.classes)
    target = Target(name, identity, surrogates=bool(declared))
    record = DefenseRecord(
        key=target.key,
        network=network,
        weights_digest=digest,
        checkpoint=path.name,
        twin=defense.twin,
    )
    surrogates = functools.partial(load_surrogates, *place) if declared else None
    return Contender(target, loader, record, surrogates)


def _found_weights(defense: Defense, network: str, source: str) -> Path:
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


class Entrants(NamedTuple):
    """Who takes part in a run."""

    contenders: list[Contender]
    """The defenses that were asked for, each knowing its sources, and then the controls."""
    sources: list[Contender]
    """What transfer attacks start from besides: nothing attacks it."""


def with_controls(
    contenders: list[Contender],
    source: str,
    examples: Examples,
    given: Mapping[str, Path],
    wanted: Iterable[str] = (),
    *,
    twins: bool = True,
) -> Entrants:
    """Add the twins, and what else transfer attacks start from, where there are weights.

    Args:
        contenders: the defenses that were asked for.
        source: the data set as written.
        examples: what is evaluated.
        given: `--checkpoint`, by name as written.
        wanted: defenses that transfer attacks name; see `source_name`.
        twins: whether twins are evaluated.

    Raises:
        CheckpointError: a `--checkpoint` of a twin or a source cannot be used.
        UnknownNameError: a twin or a source is no defense.
    """

    def found(name: str) -> Contender | None:
        registry.defenses.create(name)
        try:
            return replace(_contender(name, source, examples, given.get(name)), control=True)
        except UsageError:
            if name in given:
                raise
            return None  # without weights: comparison and transfer say that there are none

    known = {contender.target.name: contender for contender in contenders}
    for twin in [c.record.twin for c in contenders if c.record.twin and twins]:
        if twin not in known and (control := found(twin)):
            known[twin] = control
    fighting = list(known)
    names = [source_name(name, target) for target in fighting for name in wanted]
    for name in dict.fromkeys(names):
        if name not in known and (further := found(name)):
            known[name] = further
    return Entrants(
        [_with_sources(known[name], known, wanted) for name in fighting],
        [contender for name, contender in known.items() if name not in fighting],
    )


def source_name(name: str, target: str) -> str:
    """The canonical name of a source for a target: on the network that the target names.

    For `kwta[network=resnet34]` the source `relu-at` is `relu-at[network=resnet34]`.

    Args:
        name: as the transfer attack has it.
        target: canonical.

    Raises:
        UnknownNameError: there is no such defense.
    """
    network = Written.parse(target).options.get("network")
    if network and "network" in parameters_of(registry.defenses.get(name)):
        name = f"{name}[network={network}]"
    return registry.defenses.create(name).name


def _with_sources(
    contender: Contender, known: Mapping[str, Contender], wanted: Iterable[str]
) -> Contender:
    names = {name: source_name(name, contender.target.name) for name in wanted}
    if contender.record.twin:
        names["twin"] = contender.record.twin
    sources = {
        written: (name, known[name].record.weights_digest)
        for written, name in names.items()
        if name in known and name != contender.target.name
    }
    return replace(contender, target=replace(contender.target, sources=sources))


def load_surrogates(
    name: str, network: str, shape: tuple[int, int, int], classes: int, path: Path
) -> dict[str, nn.Module]:
    """A defense's surrogates with its weights, on the CPU, in eval mode.

    Raises:
        CheckpointError: the weights do not fit a surrogate.
    """
    defense = registry.defenses.create(name)
    modules = defense.surrogates(network=network, shape=shape, classes=classes)
    for module in modules.values():
        checkpoints.load_weights(path, module)
        module.eval()
    return modules


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
