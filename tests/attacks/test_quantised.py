"""Descent over images of the data's own levels, against what the best of them is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from bench.attacks.blocks.ball import Ball
from bench.attacks.quantised import Rounded, levels
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.run.evaluation import evaluate
from bench.threat import Norm
from tests.attacks.worlds import PIXELS, SHAPE, Function, broken, pose, solve

COUNT, EPSILON = 40, 0.1


def images(count: int, most: int, seed: int = 3) -> Tensor:
    """So many images of levels 0 to `most`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, most + 1, (count, *SHAPE), generator=generator).float() / most


def test_levels_are_the_fewest_that_fit() -> None:
    """Of 8 bits, of digits, of black and white; none of anything else."""
    black_and_white = images(1, 1)
    some = [images(1, 255), images(1, 16), images(1, 15), black_and_white, images(1, 255) * 0.999]
    assert levels(torch.cat(some)).tolist() == [255, 16, 15, 1, 0]


@pytest.mark.parametrize("most", [15, 16, 255])
def test_the_nearest_image_is_the_nearest_of_all_that_are_inside(most: int) -> None:
    """Pixel by pixel, of every level; what does not move keeps its bits."""
    inputs = images(COUNT, most)
    ball = Ball(Norm.LINF, inputs, torch.full((COUNT,), EPSILON, dtype=torch.float64))
    drawn = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(4))
    points = ball.project(inputs + EPSILON * (2 * drawn - 1))
    found = Rounded(ball, lambda *_: pytest.fail("nobody is asked")).nearest(
        points, torch.arange(COUNT)
    )
    every = torch.arange(most + 1).double() / most
    far = (every - points.double()[..., None]).abs()
    outside = (every - inputs.double()[..., None]).abs() > EPSILON + 1e-7
    nearest = far.masked_fill(outside, torch.inf).amin(dim=-1)
    torch.testing.assert_close((found - points).abs().double(), nearest, atol=1e-6, rtol=0)
    assert ((found - inputs).abs() <= EPSILON).all()
    still = (found - inputs).abs() < 0.5 / most
    assert still.any()
    assert torch.equal(found[still], inputs[still])


def split(weights: Tensor, bias: Tensor, most: int) -> nn.Module:
    """A linear margin on images of these levels, and one that nothing changes elsewhere."""

    def function(x: Tensor) -> Tensor:
        scaled = most * x.detach()
        on = ((scaled - scaled.round()).abs() < 1e-3).flatten(1).all(dim=1)
        margin = torch.where(on, x.flatten(1) @ weights + bias, 5 + 0 * x.flatten(1).sum(dim=1))
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)

    return Function(function)


@pytest.mark.parametrize("most", [16, 255])
def test_it_breaks_what_an_image_of_the_levels_breaks(most: int) -> None:
    """A linear margin falls by the size of each weight times the levels that fit into epsilon.

    All is found, and by nobody who does not keep to the levels.
    """
    inputs = images(COUNT, most)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(PIXELS, generator=generator)
    room = int(EPSILON * most + 1e-6) / most
    down = torch.where(weights > 0, inputs.flatten(1).clamp(max=room), 0 * inputs.flatten(1))
    up = torch.where(weights < 0, (1 - inputs.flatten(1)).clamp(max=room), 0 * down)
    falls = (weights.abs() * (down + up)).sum(dim=1)
    margins = falls + torch.linspace(-0.2, 0.2, COUNT)
    biases = margins - inputs.flatten(1) @ weights
    (known,) = torch.where(margins > 0.01)
    for row in known[::6].tolist():
        module = split(weights, biases[row], most)
        problem = pose(module, inputs[row : row + 1], torch.tensor([0]), epsilon=EPSILON, classes=2)
        assert bool(broken(problem, solve("quantised-pgd", problem))[0]) == (row < COUNT // 2)
        assert not broken(problem, solve("margin-pgd", problem)).any()


@pytest.mark.parametrize("other", [0.999 * images(1, 255), images(1, 8)])
def test_an_image_without_another_level_within_epsilon_costs_nothing_and_stays(
    other: Tensor,
) -> None:
    """Beside one that has some."""
    inputs = torch.cat([images(1, 255), other])
    problem = pose(
        nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 3)), inputs, torch.tensor([0, 0]), classes=3
    )
    assert torch.equal(solve("quantised-pgd", problem).candidates[1], inputs[1])
    alone = problem.part(torch.tensor([1]))
    assert isinstance(alone.model, CountedModel)
    before = alone.model.passes.total
    assert torch.equal(solve("quantised-pgd", alone).candidates, inputs[1:])
    assert alone.model.passes.total == before


def test_an_examination_finds_what_only_images_of_the_levels_break() -> None:
    """Where the attacks of the run find nothing: the figure is that of the closed form.

    A margin that grows with the sum of the pixels, on levels, and one of 5 elsewhere.
    """
    inputs = images(12, 16)
    sums = inputs.flatten(1).sum(dim=1)
    # What is left of each pixel with all that fits into epsilon taken away: one level of 16.
    least = (inputs - 1 / 16).clamp(min=0).flatten(1).sum(dim=1)
    bias = -float((sums.min() + least.max()) / 2)
    right, left = (float((each + bias > 0).float().mean()) for each in (sums, least))
    assert 0 < left < right
    result = evaluate(
        split(torch.ones(PIXELS), torch.tensor(bias), 16),
        inputs,
        torch.zeros(12, dtype=torch.int64),
        epsilons=[str(EPSILON)],
        attacks="pgd,apgd-ce",
        seed=3,
        progress=False,
    )
    (defense,) = result.summary["defenses"].values()
    for name in ("pgd", "apgd-ce"):
        row = defense["attacks"][name][str(EPSILON)]
        assert row["robust_accuracy"] == pytest.approx(right)
    worst = defense["worst_case"][str(EPSILON)]["robust_accuracy"]
    assert worst == pytest.approx(left)
    failed = {item["id"] for item in defense["evidence"] if item["status"] == "fail"}
    assert {"quantised-beyond-white-box", "jump-at-input"} <= failed


def test_what_it_costs_is_what_it_says() -> None:
    """For an example that does not break: every step of every descent."""
    module = Function(lambda x: torch.stack([9 + x[:, 0, 0, 0], x[:, 0, 0, 1]], dim=1))
    problem = pose(module, images(3, 255), torch.zeros(3, dtype=torch.int64), classes=2)
    solve("quantised-pgd[steps=5,restarts=3]", problem)
    assert isinstance(problem.model, CountedModel)
    passes = problem.model.passes
    cost = attacks.create("quantised-pgd[steps=5,restarts=3]").cost(
        norm=Norm.LINF, shape=SHAPE, classes=2
    )
    assert (passes.forwards, passes.backwards) == (3 * cost.forwards, 3 * cost.backwards)
