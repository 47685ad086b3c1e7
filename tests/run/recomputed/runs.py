"""Runs of small models to compute again, and files that make those models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.record.store import open_run
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from pathlib import Path


EPSILONS = ["0.01", "0.02", "0.05"]


ATTACKS = "test-random,test-best,test-minimum,test-small-remaining"


#: Those that take all epsilons in one batch.
ROWS = "test-best-rows,test-small-remaining-rows"


FACTORIES = (
    "import torch\n"
    "from tests.toy_models import Sum\n"
    "from tests.run.recomputed.runs import OwnNoise, Noise\n"
)


class Noise(nn.Module):
    """`Sum` with noise from torch's global generator, which the run seeds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2), others at each call."""
        s = (x - 0.5).flatten(1).sum(dim=1) + 0.4 * torch.randn(len(x))
        return torch.stack([-s, s], dim=1)


class OwnNoise(nn.Module):
    """The same from a generator of its own, which no seed of the run reaches."""

    drawn = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2), others at each call."""
        OwnNoise.drawn += 1
        generator = torch.Generator().manual_seed(OwnNoise.drawn)
        s = (x - 0.5).flatten(1).sum(dim=1) + 0.4 * torch.randn(len(x), generator=generator)
        return torch.stack([-s, s], dim=1)


def evaluated(out: Path, model: nn.Module | None = None, **changes: Any) -> Path:
    """A run of twenty examples in shards of six, some of them swept."""
    examples = linear_examples()
    options = {"attacks": ATTACKS, "epsilons": EPSILONS, "shard_size": 6, **changes}
    result = attack_only(model or Sum(), examples.inputs, examples.labels, out=out, **options)
    assert result.folder is not None
    return result.folder


def cell_of(folder: Path, attack: str, epsilon: str) -> str:
    """The key of a cell."""
    _, record = open_run(folder)
    return next(c.key for c in record.cells if (c.attack, c.epsilon) == (attack, epsilon))


def shards(folder: Path) -> int:
    """How many are stored."""
    return len(list(folder.glob("cells/*/*.parquet")))
