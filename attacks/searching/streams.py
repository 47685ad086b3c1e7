"""Random numbers that belong to an example, whichever batch it comes in."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem


class Streams:
    """One random stream per example.

    A stream is seeded by the seed of the problem and the example itself (bytes and label), and
    moves only when its example draws: what an example gets depends neither on its batch-mates nor
    on which of them are still being attacked. Numbers are drawn on the CPU, so that every device
    gets the same.

    Args:
        problem: its examples, one stream each.
        purpose: streams of different purposes are independent.
    """

    def __init__(self, problem: Problem, purpose: str) -> None:
        self._device = problem.inputs.device
        self._shape = problem.inputs.shape[1:]
        self._generators = []
        labels = problem.labels.tolist()
        for x, label in zip(problem.inputs.cpu().numpy(), labels, strict=True):
            digest = hashlib.sha256(f"{problem.seed} {purpose} {label} ".encode() + x.tobytes())
            seed = int.from_bytes(digest.digest()[:8], "big") >> 1
            self._generators.append(torch.Generator().manual_seed(seed))

    def uniform(self, rows: Tensor) -> Tensor:
        """One draw from [0, 1) of an input's shape for each of these examples: (M, C, H, W)."""
        draws = [torch.rand(self._shape, generator=self._generators[row]) for row in rows.tolist()]
        return torch.stack(draws).to(self._device)

    def normal(self, rows: Tensor, count: int) -> Tensor:
        """So many standard normal draws for each of these examples: (M, count, C, H, W)."""
        shape = (count, *self._shape)
        draws = [torch.randn(shape, generator=self._generators[row]) for row in rows.tolist()]
        return torch.stack(draws).to(self._device)
