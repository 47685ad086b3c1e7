"""A defense with its weights, its twin and its starts, ready to be asked."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bench import registry
from bench.data import open_dataset
from bench.errors import CheckpointError, ModelError, UsageError
from bench.models import checkpoints
from bench.models.checkpoints import weights_for
from bench.models.weights import file_and_part
from bench.record.files import digest_of
from bench.record.schema import DefenseRecord
from bench.registry.grammar import Written, parameters_of
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from bench.api import Defense, Examples

#: Makes the module of a defense, weights loaded.
Loader = Callable[[], "nn.Module"]
#: Makes the surrogates that a defense declares, weights loaded.
SurrogateLoader = Callable[[], "dict[str, nn.Module]"]
Role = Literal["asked", "control", "start"]


@dataclass(frozen=True)
class Contender:
    """A defense with its weights, its twin and its starts, ready to be asked."""

    name: str
    """Canonical."""
    identity: dict[str, Any]
    """Network, weights digest, plugin version: what its outcomes depend on."""
    record: DefenseRecord
    load: Loader
    load_surrogates: SurrogateLoader | None = None
    """None where the defense declares none."""
    role: Role = "asked"
    """`control`: here as somebody's twin, without being asked for. `start`: transfer attacks start
    from it, and nothing attacks it."""
    starts: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The models a transfer attack may start from: what its parameter `source` says, to the name
    of a defense and the digest of its weights. `twin` is among them where the twin has weights."""

    @property
    def key(self) -> str:
        """A file name for it."""
        return self.record.key


def key_of(name: str, identity: Mapping[str, Any]) -> str:
    """The file name of a defense with these weights."""
    return digest_of({"name": name, **identity})[:16]


@dataclass(frozen=True)
class Lineup:
    """Finds networks and weights of the defenses that are to be evaluated on some examples."""

    dataset: str
    """As written; its training data identify committed weights."""
    examples: Examples
    """What is evaluated."""
    given: Mapping[str, Path] = field(default_factory=dict)
    """`--checkpoint`, by name as written."""
    norm: Norm = Norm.LINF
    """Of the threat model, which a name may leave to the run."""
    say: Callable[[str], None] = field(default=lambda name: None)
    """Is told the name of a defense before it is made."""

    def asked(self, names: Sequence[str]) -> list[Contender]:
        """These defenses, each once.

        Raises:
            UsageError: an unknown name, a defense that is not made for these examples, or a
                `--checkpoint` for one that is not evaluated.
            CheckpointError: no weights, or weights of another architecture.
        """
        wanted = {self._settled(name): None for name in names}
        paths = {self._settled(name): path for name, path in self.given.items()}
        unused = sorted(paths.keys() - wanted.keys())
        if unused:
            raise UsageError(
                f"--checkpoint names {', '.join(unused)}, which is not among the defenses of this "
                f"run ({', '.join(wanted)})"
            )
        return [self._contender(name, paths.get(name)) for name in wanted]

    def with_controls(
        self, contenders: Sequence[Contender], starts: Iterable[str] = (), *, twins: bool = True
    ) -> list[Contender]:
        """Add the twins, and what else transfer attacks start from, where there are weights.

        Args:
            contenders: the defenses that were asked for.
            starts: defenses that transfer attacks name; see `start_name`.
            twins: whether twins are evaluated.

        Returns:
            The defenses that were asked for, the controls, and then the further starts.

        Raises:
            CheckpointError: a `--checkpoint` of a twin or a start cannot be used.
            UnknownNameError: a twin or a start is no defense.
        """
        wanted = list(starts)
        known = {contender.name: contender for contender in contenders}
        for twin in [c.record.twin for c in contenders if c.record.twin and twins]:
            if twin not in known and (control := self._further(twin, "control")):
                known[twin] = control
        fighting = list(known)
        names = [start_name(start, name) for name in fighting for start in wanted]
        for name in dict.fromkeys(names):
            if name not in known and (further := self._further(name, "start")):
                known[name] = further
        return [_with_starts(c, known, wanted) if n in fighting else c for n, c in known.items()]

    @functools.cached_property
    def _family(self) -> str | None:
        """Of the data set: asked once, for it may have to look at every image."""
        return open_dataset(self.dataset).family

    def _settled(self, name: str) -> str:
        """The canonical name of a defense in this run."""
        return registry.defenses.create(name).settled(
            family=self._family,
            shape=self.examples.shape,
            classes=self.examples.classes,
            norm=self.norm,
        )

    def _further(self, name: str, role: Role) -> Contender | None:
        """A defense that nobody asked for, where there are weights of it."""
        registry.defenses.create(name)
        try:
            own = self._contender(self._settled(name), self.given.get(name))
            return replace(own, role=role)
        except UsageError:
            if name in self.given:
                raise
            return None  # without weights: comparison and transfer say that there are none

    def _contender(self, name: str, path: Path | None) -> Contender:
        from bench.models.manner import dtype_of

        self.say(name)
        examples = self.examples
        defense = registry.defenses.create(name)
        network = defense.network(shape=examples.shape)
        weights = weights_for(defense, network, self.dataset, examples, path)
        place = (name, network, examples.shape, examples.classes, weights.files)
        module = load(*place)
        digest = checkpoints.weights_digest(module)
        further = dict(defense.dependencies())
        identity = {
            "network": network,
            "weights": digest,
            "version": defense.version,
            "parameters": defense.parameters,
            **({"dependencies": further} if further else {}),
        }
        declared = defense.surrogates(
            network=network, shape=examples.shape, classes=examples.classes
        )
        published = defense.published(family=self._family, norm=self.norm)
        return Contender(
            name,
            identity,
            DefenseRecord(
                key=key_of(name, identity),
                network=network,
                weights_digest=digest,
                checkpoint=weights.origin,
                dtype=str(dtype_of(module)).removeprefix("torch."),
                twin=defense.twin,
                published=published.to_json() if published else None,
            ),
            # Whoever loads it later, in whatever process, has to get these very weights.
            functools.partial(load, *place, digest),
            functools.partial(load_surrogates, *place) if declared else None,
        )


def start_name(start: str, name: str) -> str:
    """The canonical name of what a transfer starts from, on the network that the target names.

    For `kwta[network=resnet34]` the start `relu-at` is `relu-at[network=resnet34]`.

    Args:
        start: as the transfer attack has it.
        name: of the target, canonical.

    Raises:
        UnknownNameError: there is no such defense.
    """
    network = Written.parse(name).options.get("network")
    if network and "network" in parameters_of(registry.defenses.get(start)):
        start = f"{start}[network={network}]"
    return registry.defenses.create(start).name


def _with_starts(
    contender: Contender, known: Mapping[str, Contender], wanted: Iterable[str]
) -> Contender:
    names = {written: start_name(written, contender.name) for written in wanted}
    if contender.record.twin:
        names["twin"] = contender.record.twin
    starts = {
        written: (name, known[name].record.weights_digest)
        for written, name in names.items()
        if name in known and name != contender.name
    }
    return replace(contender, starts=starts)


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
        if not file_and_part(path)[0].is_file():
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
