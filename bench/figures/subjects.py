"""What figures are drawn of: activations by the name of their defense, and models with weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import registry
from bench.data import default_epsilons
from bench.errors import UsageError
from bench.matrix.model import CountedModel
from bench.matrix.targets import resolve
from bench.record.provenance import version_of
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from bench.api import Examples

#: Largest forward pass; what is drawn does not depend on it.
BATCH = 256


@dataclass(frozen=True, eq=False)
class Subject:
    """A defense with its weights."""

    name: str
    """Canonical."""
    weights_digest: str
    model: CountedModel
    """Frozen, in eval mode, on its device."""

    @property
    def credit(self) -> str:
        """As in captions: the name, and the first eight digits of the weights' digest."""
        return f"{self.name} ({self.weights_digest[:8]})"


def load_subjects(
    names: Sequence[str],
    source: str,
    examples: Examples,
    checkpoints: Mapping[str, Path],
    device: str,
) -> list[Subject]:
    """Defenses with the weights that `run` would take.

    Args:
        names: as written.
        source: the data set as written; its training data identify the weights.
        examples: what the models are to be shown.
        checkpoints: `--checkpoint`, by name as written.
        device: where the models run.

    Raises:
        UsageError: no name, an unknown one, or a checkpoint for another defense.
        CheckpointError: no weights, or weights of another architecture.
    """
    if not names:
        raise UsageError("no defense given; name one, such as --defense kwta")
    return [
        Subject(
            contender.target.name,
            contender.record.weights_digest,
            CountedModel(contender.loader(), examples.classes, BATCH, device),
        )
        for contender in resolve(names, source, examples, checkpoints)
    ]


def activations_of(names: Sequence[str]) -> dict[str, Callable[[], nn.Module]]:
    """What makes each defense's activation, by canonical name.

    Raises:
        UsageError: no name, an unknown one, or a defense that has no activation to show.
    """
    if not names:
        raise UsageError("no activation given; name one, such as --activation relu,kwta")
    found = {}
    for written in names:
        defense = registry.defenses.create(written)
        factory = defense.activation()
        if factory is None:
            raise UsageError(
                f"{defense.name} has no activation of its own to show; choose a defense that lies "
                "in its activation, such as relu or kwta (python -m bench list)"
            )
        found[defense.name] = factory
    return found


def choose_epsilon(text: str, family: str | None, *, largest: bool = False) -> Epsilon:
    """An Linf epsilon as written; where empty the headline one of a family of data sets.

    With `largest`, the largest of the family's epsilons takes the place of the headline one.

    Raises:
        UsageError: not an epsilon of Linf, or nothing was given and the family has none.
    """
    if text:
        epsilon = Epsilon.parse(text)
    else:
        usual, headline = default_epsilons(family, Norm.LINF)
        epsilon = usual[-1] if largest else headline
    ThreatModel(Norm.LINF, epsilon)
    return epsilon


def setting_credit(dataset: str, n: int, seed: int) -> str:
    """The end of a caption: data, count, seed, version."""
    return f"{dataset}, n = {n}, seed {seed}, {torch_credit()}"


def torch_credit() -> str:
    """The version that computed what is drawn."""
    return f"torch {version_of('torch')}"
