"""From the names of defenses to models: networks, weights, digests."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import registry
from bench.data import open_dataset
from bench.errors import CheckpointError, ModelError, UsageError
from bench.models import checkpoints
from bench.models.checkpoints import weights_for
from bench.record.files import digest_of
from bench.registry.grammar import Written, parameters_of
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from bench.api import Defense, Examples
    from bench.record.schema import DefenseRecord


@dataclass(frozen=True)
class Target:
    """A defense with its weights, as far as a plan has to know it."""

    name: str
    """Canonical."""
    identity: dict[str, Any]
    """Network, weights digest, plugin version: what its outcomes depend on."""
    surrogates: bool = False
    """Whether the defense declares surrogates."""
    sources: dict[str, tuple[str, str]] = field(default_factory=dict)
    """The models a transfer attack may start from: what its parameter `source` says, to the name
    of a defense and the digest of its weights. `twin` is among them where the twin has weights."""

    @property
    def key(self) -> str:
        """A file name for it."""
        return digest_of({"name": self.name, **self.identity})[:16]


#: Makes the module of a defense, weights loaded; called once in each worker.
Loader = Callable[[], "nn.Module"]


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
    names: Sequence[str],
    source: str,
    examples: Examples,
    given: Mapping[str, Path],
    norm: Norm = Norm.LINF,
) -> list[Contender]:
    """Find network and weights of each defense.

    Args:
        names: as written; each is made canonical.
        source: the data set as written; its training data identify committed weights.
        examples: what is evaluated.
        given: `--checkpoint`, by name as written.
        norm: of the threat model, which a name may leave to the run.

    Raises:
        UsageError: an unknown name, a defense that is not made for these examples, or a
            `--checkpoint` for one that is not evaluated.
        CheckpointError: no weights, or weights of another architecture.
    """
    run = functools.partial(_settled, source=source, examples=examples, norm=norm)
    wanted = {run(name): None for name in names}
    paths = {run(name): path for name, path in given.items()}
    unused = sorted(paths.keys() - wanted.keys())
    if unused:
        raise UsageError(
            f"--checkpoint names {', '.join(unused)}, which is not among the defenses of this run "
            f"({', '.join(wanted)})"
        )
    return [_contender(name, source, examples, paths.get(name), norm) for name in wanted]


def _settled(name: str, *, source: str, examples: Examples, norm: Norm) -> str:
    """The canonical name of a defense in this run."""
    return registry.defenses.create(name).settled(
        family=open_dataset(source).family,
        shape=examples.shape,
        classes=examples.classes,
        norm=norm,
    )


def _contender(
    name: str, source: str, examples: Examples, path: Path | None, norm: Norm
) -> Contender:
    from bench.record.schema import DefenseRecord

    defense = registry.defenses.create(name)
    network = defense.network(shape=examples.shape)
    weights = weights_for(defense, network, source, examples, path)
    place = (name, network, examples.shape, examples.classes, weights.files)
    digest = checkpoints.weights_digest(load(*place))
    further = dict(defense.dependencies())
    identity = {
        "network": network,
        "weights": digest,
        "version": defense.version,
        "parameters": defense.parameters,
        **({"dependencies": further} if further else {}),
    }
    declared = defense.surrogates(network=network, shape=examples.shape, classes=examples.classes)
    target = Target(name, identity, surrogates=bool(declared))
    published = defense.published(family=open_dataset(source).family, norm=norm)
    record = DefenseRecord(
        key=target.key,
        network=network,
        weights_digest=digest,
        checkpoint=weights.source,
        twin=defense.twin,
        published=dataclasses.asdict(published) if published else None,
    )
    # Whoever loads it later, in whatever process, has to get these very weights.
    loader = functools.partial(load, *place, digest)
    surrogates = functools.partial(load_surrogates, *place) if declared else None
    return Contender(target, loader, record, surrogates)


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
    norm: Norm = Norm.LINF,
    twins: bool = True,
) -> Entrants:
    """Add the twins, and what else transfer attacks start from, where there are weights.

    Args:
        contenders: the defenses that were asked for.
        source: the data set as written.
        examples: what is evaluated.
        given: `--checkpoint`, by name as written.
        wanted: defenses that transfer attacks name; see `source_name`.
        norm: as in `resolve`.
        twins: whether twins are evaluated.

    Raises:
        CheckpointError: a `--checkpoint` of a twin or a source cannot be used.
        UnknownNameError: a twin or a source is no defense.
    """

    def found(name: str) -> Contender | None:
        registry.defenses.create(name)
        try:
            settled = _settled(name, source=source, examples=examples, norm=norm)
            own = _contender(settled, source, examples, given.get(name), norm)
            return replace(own, control=True)
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
        written: (known[name].target.name, known[name].record.weights_digest)
        for written, name in names.items()
        if name in known and known[name].target.name != contender.target.name
    }
    return replace(contender, target=replace(contender.target, sources=sources))


def load_surrogates(
    name: str,
    network: str,
    shape: tuple[int, int, int],
    classes: int,
    files: Sequence[Path],
) -> dict[str, nn.Module]:
    """A defense's surrogates with its weights, on the CPU, in eval mode.

    Raises:
        CheckpointError: the weights do not fit a surrogate.
    """
    defense = registry.defenses.create(name)
    modules = defense.surrogates(network=network, shape=shape, classes=classes)
    for module in modules.values():
        _load_into(module, defense, files)
    return modules


def load(
    name: str,
    network: str,
    shape: tuple[int, int, int],
    classes: int,
    files: Sequence[Path],
    digest: str = "",
) -> nn.Module:
    """A defense's module with its weights, on the CPU, in eval mode.

    Args:
        name: canonical.
        network: the architecture.
        shape: (C, H, W) of one input.
        classes: the number of logits.
        files: of the weights; none where `build` brings them.
        digest: of the weights that it has to have; any where empty.

    Raises:
        CheckpointError: a file is missing, foreign, or of another architecture, or the weights
            are others.
        ModelError: the plugin did not build a module.
    """
    import torch

    for path in files:
        if not path.is_file():
            raise CheckpointError(f"no checkpoint at {path} (for {name})")
    defense = registry.defenses.create(name)
    module = defense.build(network=network, shape=shape, classes=classes)
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"{name}: build() returned {type(module).__name__}, not an nn.Module")
    _load_into(module, defense, files)
    if digest and (found := checkpoints.weights_digest(module)) != digest:
        raise CheckpointError(
            f"its weights are others each time they are loaded (digest {found[:12]}, before "
            f"{digest[:12]}): files changed, or what makes them draws random numbers; load fixed "
            "ones"
        )
    return module


def _load_into(module: nn.Module, defense: Defense, files: Sequence[Path]) -> None:
    """Load weights into a module and put it in eval mode."""
    if files:
        first, *further = files
        checkpoints.load_weights(first, module, defense.adapt, further)
    module.eval()
