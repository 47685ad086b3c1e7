"""Looks at a model through Gaussian points around the iterate: by differences, by gradients.

A look at a randomised model: the mean over draws with fixed seeds.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING

import torch
from torch import nn

from bench.api.attacks import margins
from bench.attacks.blocks.descent import Sight, margin_gradient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.ball import Streams


#: Rows that a model gets at once at most.
ROWS = 4_096


#: Of a randomised model, what is measured is measured of the mean of so many draws.
DRAWS = 10


#: Antithetic pairs drawn at once for an example: fixed, so that draws never depend on the batch.
PAIRS = 512


#: Rounds of orthogonalisation by Cholesky, and what is added to the diagonal, relative to it.
CHOLESKY, HAIR = 3, 1e-14


class GaussianLook:
    """Antithetic Gaussian points around each iterate, in batches of bounded size.

    Args:
        problem: whose model is looked at.
        streams: one per example.
        sigma: spread of the points, of all or (N,) of each example.
        counts: points per step, two to a pair.
        orthogonal: make the draws of a step orthogonal to one another, each of its own length:
            they stay Gaussian one by one, and with as many pairs as pixels the differences of a
            linear margin give its gradient without noise.

    Attributes:
        forwards: int64 (N,), what each example took.
    """

    def __init__(
        self,
        problem: Problem,
        streams: Streams,
        sigma: float | Tensor,
        counts: Sequence[int],
        *,
        orthogonal: bool = False,
    ) -> None:
        self.problem = problem
        self.streams = streams
        self.sigma = torch.as_tensor(sigma, device=problem.inputs.device).float()
        self.sigma = self.sigma.expand(len(problem.inputs))
        self.counts = counts
        self.orthogonal = orthogonal
        self.forwards = torch.zeros_like(problem.labels)

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """See `Look`: margins at the points themselves, the gradient only where not yet broken."""
        labels = self.problem.labels[rows]
        with torch.no_grad():
            found = margins(self.problem.model(x), labels)
        self.forwards[rows] += 1
        if step is None:
            return Sight(found, None)
        gradient = torch.zeros_like(x)
        (alive,) = torch.where(found >= 0)
        pairs = max(1, self.counts[step] // 2)
        size = max(1, ROWS // (2 * min(pairs, PAIRS)))
        for group in [alive[start : start + size] for start in range(0, len(alive), size)]:
            for count in _blocks(pairs):
                draws = self.streams.normal(rows[group], count)
                if self.orthogonal:
                    draws = _orthogonal(draws)
                sigma = self.sigma[rows[group]]
                gradient[group] += self.estimate(x[group], labels[group], draws, sigma)
        self.forwards[rows[alive]] += 2 * pairs
        gradient /= pairs
        return Sight(found, gradient)

    def estimate(self, x: Tensor, labels: Tensor, draws: Tensor, sigma: Tensor) -> Tensor:
        """The sum over pairs of what they say about the gradient.

        Args:
            x: (M, C, H, W).
            labels: int64 (M,).
            draws: standard normal, (M, pairs, C, H, W).
            sigma: their spread, (M,).

        Returns:
            Shape of `x`.
        """
        raise NotImplementedError


class FiniteDifferences(GaussianLook):
    """The gradient by central differences of the margin along each draw."""

    def estimate(self, x: Tensor, labels: Tensor, draws: Tensor, sigma: Tensor) -> Tensor:
        """Mean of difference times draw: an unbiased estimate of the smoothed gradient."""
        points, targets = _points(x, labels, draws, sigma)
        with torch.no_grad():
            found = margins(self.problem.model(points), targets).double()
        plus, minus = found.reshape(len(x), 2, -1).unbind(dim=1)
        slopes = ((plus - minus) / (2 * sigma[:, None])).to(x.dtype)
        if x.is_cuda:
            return torch.bmm(slopes[:, None], draws.flatten(2)).reshape(x.shape)
        # One product per example: its rounding must not depend on how many there are.
        sums = [weights @ moves.flatten(1) for weights, moves in zip(slopes, draws, strict=True)]
        return torch.stack(sums).reshape(x.shape)


class AveragedGradient(GaussianLook):
    """The mean of the model's own gradients at the points (IndicatorsOfAttackFailure)."""

    def estimate(self, x: Tensor, labels: Tensor, draws: Tensor, sigma: Tensor) -> Tensor:
        """Sum over pairs of the mean of the two gradients."""
        points, targets = _points(x, labels, draws, sigma)
        _, gradient = margin_gradient(self.problem.model, points, targets)
        return gradient.reshape(len(x), -1, *x.shape[1:]).sum(dim=1) / 2


def _points(x: Tensor, labels: Tensor, draws: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
    """Both points of every pair in one batch, and their labels."""
    centres, moves = x[:, None], sigma.reshape(-1, *[1] * x.ndim) * draws
    points = torch.stack([centres + moves, centres - moves], dim=1).flatten(0, 2)
    return points, labels.repeat_interleave(2 * draws.shape[1])


def _blocks(pairs: int) -> Iterator[int]:
    """So many pairs in blocks of `PAIRS`."""
    for start in range(0, pairs, PAIRS):
        yield min(PAIRS, pairs - start)


def _orthogonal(draws: Tensor) -> Tensor:
    """Draws of the same lengths, (M, pairs, C, H, W), orthogonal as far as there are dimensions."""
    flat = draws.flatten(2)
    parts = []
    for part in torch.split(flat, flat.shape[2], dim=1):
        basis = _many_bases(part) if part.is_cuda else _bases(part)
        parts.append(basis * part.norm(dim=2, keepdim=True))
    return torch.cat(parts, dim=1).reshape(draws.shape)


def _bases(rows: Tensor) -> Tensor:
    """Orthonormal rows that span the same, of each matrix; (M, pairs, K), pairs at most K."""
    basis: Tensor = torch.linalg.qr(rows.transpose(1, 2)).Q
    return basis.transpose(1, 2)


def _many_bases(rows: Tensor) -> Tensor:
    """The same but for signs, all in one call, where a GPU would factorise one by one.

    CholeskyQR2 (Yamamoto, Nakatsukasa, Yanagisawa and Fukaya, ETNA 2015), in float64. Matrices that
    are nearly singular, such as square ones may be, have a hair added: their second round mends it.
    """
    basis = rows.double()
    for _ in range(CHOLESKY):
        gram = basis @ basis.transpose(1, 2)
        size = gram.diagonal(dim1=1, dim2=2).mean(dim=1)[:, None, None]
        eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky_ex(gram + HAIR * size * eye).L
        basis = torch.linalg.solve_triangular(factor, basis, upper=False)
    return basis.to(rows.dtype)


class OverDraws:
    """Mean margin and mean gradient over draws; each draw is a seed, the same for every step.

    Args:
        problem: whose model is looked at.
        draws: how many.
    """

    def __init__(self, problem: Problem, draws: int) -> None:
        self.problem = problem
        self.draws = draws

    def __call__(self, x: Tensor, rows: Tensor, step: int | None) -> Sight:
        """See `Look`. The generators of torch are left as they were found."""
        labels, model = self.problem.labels[rows], self.problem.model
        found = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        gradient = torch.zeros_like(x)
        for draw in range(self.draws):
            with seeded(self.problem.seed * self.draws + draw, x.device):
                if step is None:
                    with torch.no_grad():
                        found += margins(model(x), labels)
                else:
                    drawn, slope = margin_gradient(model, x, labels)
                    found += drawn
                    gradient += slope / self.draws
        return Sight(found / self.draws, None if step is None else gradient)


class _Mean(nn.Module):
    """The mean logits of a model over draws, each a seed: one answer to one batch.

    Two batches of one size are asked about with the same random numbers, row by row.
    """

    def __init__(self, model: nn.Module, seed: int, draws: int) -> None:
        super().__init__()
        self.model, self.seed, self.draws = model, seed, draws

    def forward(self, x: Tensor) -> Tensor:
        """Shape and dtype of the model's."""
        total: Tensor | None = None
        for draw in range(self.draws):
            with seeded(self.seed * self.draws + draw, x.device):
                logits = self.model(x)
            total = logits if total is None else total + logits
        assert total is not None
        return total / self.draws


def over_draws(problem: Problem, draws: int = DRAWS) -> Problem:
    """The problem of the mean logits where the model is randomised, else the problem itself."""
    if not problem.randomised:
        return problem
    return dataclasses.replace(problem, model=_Mean(problem.model, problem.seed, draws))


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Torch draws from this seed, and goes on afterwards as if it had not."""
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
