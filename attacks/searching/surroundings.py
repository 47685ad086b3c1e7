"""What a model answers close to an input: whether it is finite, and how far it jumps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.attacks.bridging import radius
from bench.attacks.searching.ball import margins
from bench.attacks.searching.streams import Streams
from bench.errors import NonFiniteLogitsError
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bench.api import Problem

#: Draws from the ball at which the logits have to be finite.
NEAR = 10
#: How far from the input predictions have to be stable.
CLOSE = 0.01


def around(problem: Problem, draws: int) -> dict[str, Tensor]:
    """`nonfinite_near` (bool) and `unstable` (float64, NaN where the logits are), (N,) each."""
    failed = torch.zeros_like(problem.labels).bool()
    for points in _points(problem):
        failed |= ~torch.isfinite(logits_where_finite(problem, points)).all(dim=1)
    streams, rows = Streams(problem, "unstable"), torch.arange(len(problem.inputs))
    with torch.no_grad():
        middle = margins(problem.model(problem.inputs.clone()).double(), problem.labels)
    total = torch.zeros_like(middle)
    for _ in range(draws):
        noise = CLOSE * (2 * streams.uniform(rows) - 1)
        logits = logits_where_finite(problem, (problem.inputs + noise).clamp(0, 1))
        total += (margins(logits, problem.labels) - middle).abs() / middle.abs()
    return {"nonfinite_near": failed, "unstable": (total / draws).clamp(max=1)}


def logits_where_finite(problem: Problem, x: Tensor) -> Tensor:
    """Logits in float64, (N, classes); NaN for the examples that the model refuses."""
    with torch.no_grad():
        try:
            logits: Tensor = problem.model(x).double()
            return logits
        except NonFiniteLogitsError:
            if len(x) == 1:
                return x.new_full((1, problem.classes), torch.nan, dtype=torch.float64)
    half = len(x) // 2
    return torch.cat([logits_where_finite(problem, part) for part in (x[:half], x[half:])])


def _points(problem: Problem) -> Iterator[Tensor]:
    """Draws from the ball, two of the corners around it, and three corners of the box."""
    inputs, size = problem.inputs, radius(problem)
    streams, rows = Streams(problem, "surroundings"), torch.arange(len(inputs))
    for _ in range(NEAR):
        noise = streams.normal(rows, 1)[:, 0]
        if problem.norm is Norm.LINF:
            noise = 2 * streams.uniform(rows) - 1
        distance = problem.norm.distance(torch.zeros_like(noise), noise).clamp(min=1e-12)
        scale = size if problem.norm is Norm.LINF else size / distance.float()
        yield (inputs + noise * torch.as_tensor(scale).reshape(-1, 1, 1, 1)).clamp(0, 1)
    reach = {Norm.LINF: 1.0, Norm.L2: inputs[0].numel() ** -0.5, Norm.L1: 1 / inputs[0].numel()}
    for _ in range(2):
        signs = (streams.uniform(rows) - 0.5).sign()
        yield (inputs + size * reach[problem.norm] * signs).clamp(0, 1)
    yield torch.zeros_like(inputs)
    yield torch.ones_like(inputs)
    yield (streams.uniform(rows) > 0.5).to(inputs)
