"""Attacks on single pixels, against linear models and brute force."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from bench.api import Cost, Problem
from bench.attacks.blocks.pixels import _choose, with_pixels
from bench.errors import AttackError, UsageError
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.threat import Norm
from tests.attacks.worlds import (
    SHAPE,
    Function,
    broken,
    distances,
    linear_problem,
    network_problem,
    pose,
    solve,
    unbreakable_problem,
)


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("classes", [2, 4])
def test_single_pixel_breaks_what_the_best_pixel_breaks(classes: int, norm: Norm) -> None:
    """One pixel of one channel moves by epsilon in every norm: the exact distance is that in L1."""
    problem, exact = linear_problem(classes, Norm.L1, 40)
    found = broken(problem, solve("single-pixel", replace(problem, norm=norm)))
    assert found.tolist() == (exact <= (problem.epsilon or 0)).tolist()
    assert 0 < found.sum() < 40


@pytest.mark.parametrize("norm", list(Norm))
def test_all_channels_of_a_pixel_go_the_same_way(norm: Norm) -> None:
    """The margin falls by the best pixel's sum of weights, times what epsilon allows a channel."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(3, 4, 4, generator=generator)
    module = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    linear = module[1]
    assert isinstance(linear, nn.Linear)
    linear.weight.data = torch.stack([weights.flatten(), -weights.flatten()])
    linear.bias.data = torch.tensor([20.0, -20.0])
    inputs = torch.full((1, 3, 4, 4), 0.5)
    problem = pose(module, inputs, torch.tensor([0]), norm=norm, epsilon=0.2, classes=2)
    found = solve("single-pixel", problem).candidates
    each = {Norm.LINF: 0.2, Norm.L2: 0.2 / 3**0.5, Norm.L1: 0.2 / 3}[norm]
    with torch.no_grad():
        before, after = (float(module(x) @ torch.tensor([1.0, -1.0])) for x in (inputs, found))
    assert before - after == pytest.approx(2 * each * float(weights.sum(0).abs().max()), rel=1e-4)
    assert (found != inputs).any(dim=1).sum() == 1


@pytest.mark.parametrize("classes", [2, 4])
def test_local_search_reaches_the_exact_robust_accuracy_of_a_linear_model(classes: int) -> None:
    """In Linf the pixels do not share epsilon: set one after another they end in the best corner.

    So it breaks what single-pixel does, and more.
    """
    problem, exact = linear_problem(classes, Norm.LINF, 20)
    found = broken(problem, solve("local-search[rounds=20]", problem))
    assert found.tolist() == (exact <= (problem.epsilon or 0)).tolist()
    assert found.sum() > broken(problem, solve("single-pixel", problem)).sum()


def test_pixels_share_epsilon_in_l2() -> None:
    """Several are set, all of epsilon is used, and together they break more than one pixel does."""
    problem, exact = linear_problem(2, Norm.L2, 20)
    epsilon = problem.epsilon or 0
    proposal = solve("local-search", problem)
    sizes = distances(Norm.L2, problem.inputs, proposal.candidates)
    unbroken = exact > epsilon
    assert sizes[unbroken] == pytest.approx(epsilon, abs=1e-5)
    changed = (proposal.candidates != problem.inputs).flatten(1).sum(dim=1)
    assert (changed[torch.from_numpy(unbroken)] > 5).all()
    found = broken(problem, proposal)
    assert found.sum() > broken(problem, solve("single-pixel", problem)).sum()


def test_the_best_pixel_alone_is_set_where_more_of_them_help_less() -> None:
    """In L1 a second pixel takes from the first what it gains: with equal weights none follows."""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([x.flatten(1).mean(dim=1), torch.zeros(len(x))], dim=1)

    problem = pose(
        Function(mean),
        torch.full((2, *SHAPE), 0.5),
        torch.zeros(2).long(),
        norm=Norm.L1,
        epsilon=0.25,
        classes=2,
    )
    candidates = solve("local-search", problem).candidates
    assert (candidates != problem.inputs).flatten(1).sum(dim=1).tolist() == [1, 1]
    assert candidates.amin().item() == 0.25


def test_pixels_near_those_moved_are_probed_first() -> None:
    """All within reach before any other, by brute force over the image."""
    generator = torch.Generator().manual_seed(0)
    uniform = torch.rand(3, 7, 9, generator=generator)
    moved = torch.zeros(3, 63, dtype=torch.bool)
    moved[0, 0] = moved[0, 5 * 9 + 4] = moved[1, 30] = True  # none in the third example
    chosen = _choose(uniform, moved, 1, 20)
    for example in range(3):
        places = {divmod(place, 9) for place in torch.where(moved[example])[0].tolist()}
        near = {
            (row, column)
            for row in range(7)
            for column in range(9)
            if any(abs(row - r) <= 1 and abs(column - c) <= 1 for r, c in places)
        }
        found = [divmod(place, 9) for place in chosen[example].tolist()]
        assert len(set(found)) == 20
        assert set(found[: len(near)]) == near


def test_pixels_are_set_in_all_channels_and_nowhere_else() -> None:
    """Each example at its own places, to its own values; the input stays as it is."""
    x = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    places = torch.tensor([[0, 19], [7, 3]])
    changed = with_pixels(x, places, torch.tensor([[0.0, 1.0], [1.0, 0.25]]))
    expected = before.numpy().copy()
    expected[0, :, 0, 0], expected[0, :, 3, 4] = 0, 1
    expected[1, :, 1, 2], expected[1, :, 0, 3] = 1, 0.25
    assert np.array_equal(changed.numpy(), expected)
    assert x.equal(before)


@pytest.mark.parametrize(
    "name",
    [
        "single-pixel",
        "single-pixel[pixels=7]",
        "local-search",
        "local-search[pixels=100,rounds=2]",
        "local-search[moves=9,pixels=5,rounds=3]",
    ],
)
def test_cost_is_exact_where_nothing_breaks(name: str) -> None:
    """Small images have fewer pixels than are asked for."""
    problem = unbreakable_problem(Norm.LINF)
    cost = attacks.create(name).cost(norm=Norm.LINF, shape=SHAPE, classes=problem.classes)
    solve(name, problem)
    assert isinstance(problem.model, CountedModel)
    assert problem.model.passes == Cost(cost.forwards * len(problem.inputs))


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["single-pixel", "local-search"])
def test_defaults_cost_at_most_500_forwards(name: str, shape: tuple[int, int, int]) -> None:
    """Affordable in the suite `all`."""
    cost = attacks.create(name).cost(norm=Norm.LINF, shape=shape, classes=10)
    assert cost.forwards <= 500
    assert cost.backwards == 0


@pytest.mark.parametrize("name", ["single-pixel[pixels=10]", "local-search[pixels=8,rounds=4]"])
def test_an_example_gets_the_same_pixels_whatever_its_batch(name: str) -> None:
    """Alone, or with mates that leave early; and each example has an order of its own."""
    problem = network_problem(Norm.LINF, 0.15)
    together = solve(name, problem).candidates
    for row in range(len(problem.inputs)):
        part = slice(row, row + 1)
        alone = replace(problem, inputs=problem.inputs[part], labels=problem.labels[part])
        assert solve(name, alone).candidates.equal(together[part])
    places = (together != problem.inputs).flatten(1)
    assert len({tuple(row.tolist()) for row in places}) > 1


def test_what_is_wrong_is_named() -> None:
    """Parameters that are not positive, and a problem without epsilon."""
    for text in ("single-pixel[pixels=0]", "local-search[reach=0]"):
        with pytest.raises(UsageError, match="has to be greater than 0"):
            attacks.create(text)
    problem: Problem = network_problem(Norm.LINF, None)
    for name in ("single-pixel", "local-search"):
        with pytest.raises(AttackError, match="needs an epsilon"):
            solve(name, problem)
