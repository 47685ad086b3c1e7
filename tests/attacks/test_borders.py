"""What is measured where a class changes, against models of which it is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from bench.api import Problem
from bench.attacks.blocks.borders import border_jumps
from bench.threat import Norm
from tests.attacks.worlds import Function

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def posed(function: Callable[[Tensor], Tensor], firsts: list[float], **more: object) -> Problem:
    """Two classes, told by the first pixel; images of these first pixels, grey elsewhere."""
    inputs = torch.full((len(firsts), 1, 4, 4), 0.5)
    inputs[:, 0, 0, 0] = torch.tensor(firsts)
    labels = (inputs[:, 0, 0, 0] > 0.5).long()
    problem = Problem(Function(function), inputs, labels, Norm.LINF, 0.1, 2, 7)
    return problem.part(torch.arange(len(firsts)), **more)


def scored(score: Tensor) -> Tensor:
    """Logits half a score to either side."""
    return torch.stack([-score, score], dim=1) / 2


FIRSTS = [0.1, 0.2, 0.7, 0.9]


@pytest.mark.parametrize("power", [1, 3])
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_a_continuous_margin_does_not_jump(power: int, factor: float) -> None:
    """However flat it is at the border, and however large the logits are."""
    found = border_jumps(posed(lambda x: scored(factor * (2 * x[:, 0, 0, 0] - 1) ** power), FIRSTS))
    assert found.max() < 1e-5


@pytest.mark.parametrize("least", [0.01, 0.3])
def test_a_step_is_measured_in_parts_of_the_margin(least: float) -> None:
    """A score that begins at `least` on either side falls by twice that, in parts of the margin."""

    def stepping(x: Tensor) -> Tensor:
        first = 2 * x[:, 0, 0, 0] - 1
        return scored(torch.where(first > 0, least, -least) + (1 - least) * first)

    own = torch.tensor([(1 - least) * abs(2 * first - 1) + least for first in FIRSTS])
    expected = 2 * least / own.clamp(min=own.median())
    assert border_jumps(posed(stepping, FIRSTS)).float() == pytest.approx(expected, rel=1e-3)


def test_nothing_is_measured_without_a_border() -> None:
    """Of one class, of wrong examples, of one example, of a randomised model."""

    def linear(x: Tensor) -> Tensor:
        return scored(2 * x[:, 0, 0, 0] - 1)

    def upside_down(x: Tensor) -> Tensor:
        return -linear(x)

    for problem in (
        posed(linear, [0.1, 0.2]),
        posed(upside_down, FIRSTS),
        posed(linear, [0.9]),
        posed(linear, FIRSTS, randomised=True),
    ):
        assert border_jumps(problem).isnan().all()
    wrong = posed(linear, FIRSTS, labels=torch.tensor([0, 1, 1, 1]))
    assert border_jumps(wrong).isnan().tolist() == [False, True, False, False]
