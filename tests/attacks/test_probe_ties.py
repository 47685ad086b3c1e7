"""Ties of max-pooling are no fault of a model: probes measure beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from bench.api.attacks import margins
from bench.attacks.blocks.ball import INSET, JITTER, untied
from bench.attacks.probes import correlation, gradient
from tests.attacks.worlds import Function, pose, solve

if TYPE_CHECKING:
    from bench.api import Problem


def pooled(x: Tensor, height: float = 1.0) -> Tensor:
    """Two logits: the sum of 2×2 maxima, less 1/2 for each, plus a constant; and zero."""
    maxima = functional.max_pool2d(x, 2).flatten(1)
    margin = (maxima - 0.5).sum(dim=1) + height
    return torch.stack([margin, 0 * margin], dim=1)


def uniform_grey(side: int, height: float = 1.0) -> Problem:
    """Every pixel 0.5, so that all inputs of each pooling window are equal."""
    inputs = torch.full((8, 1, side, side), 0.5)
    model = Function(lambda x: pooled(x, height))
    return pose(model, inputs, torch.zeros(8).long(), classes=2)


def test_ties_of_max_pooling_are_no_masking() -> None:
    """On a constant input autograd follows one pixel of each window, differences the largest.

    There the correlation of max(u) + min(u) with the one pixel's u is known: by symmetry their
    covariance is 1/2, and for four normal numbers Var(max) = 0.4917, Cov(min, max) = 0.1047
    (Teichroew, 1956), which makes 0.46. Beside the tie a window has one largest pixel, and the
    gradient is right.
    """
    problem = uniform_grey(16)
    slope, _ = gradient(problem, problem.inputs, margins)
    directions = torch.randn(20_000, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    ahead, behind = (pooled(0.5 + 0.003 * sign * directions)[:, 0] for sign in (1, -1))
    told = (directions * slope[0]).flatten(1).sum(dim=1)
    at_tie = correlation((ahead - behind).double().numpy(), told.double().numpy())

    np.testing.assert_allclose(at_tie, 0.5 / (2 * (0.4917 + 0.1047)) ** 0.5, atol=0.02)
    assert solve("probe-gradients", problem).extra["fidelity"].min() > 0.9


def test_ties_of_max_pooling_are_no_instability() -> None:
    """The mean of the largest of four uniform numbers within 0.01 is 0.006: a shift, not rough.

    A hundred windows shift a margin of 5 by 12 % at the tie; beside it they nearly cancel out.
    """
    problem = uniform_grey(20, height=5.0)
    noise = 0.01 * (2 * torch.rand(2_000, 1, 20, 20) - 1)
    at_tie = (pooled(0.5 + noise)[:, 0] - 1).mean() / 5

    np.testing.assert_allclose(at_tie, 0.12, rtol=0.02)
    assert solve("probe-behaviour", problem).extra["unstable"].max() < 0.06


def test_a_point_without_ties_is_close_and_inside_the_box() -> None:
    """No two pixels are alike, none is at the border, and each example's is its own."""
    problem = uniform_grey(16)
    problem.inputs[:4], problem.inputs[4:] = 0, 1
    points = untied(problem)

    assert all(len(point.unique()) == point.numel() for point in points)
    assert float(points.min()) >= INSET
    assert float(points.max()) <= 1 - INSET
    assert float((points - problem.inputs).abs().max()) <= INSET + 2 * JITTER + 1e-6
