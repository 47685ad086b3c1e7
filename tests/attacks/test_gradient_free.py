"""Finite-difference PGD: closed forms, streams that belong to examples, active sets."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.api import Problem
from bench.attacks.blocks.ball import Streams
from bench.attacks.blocks.looks import FiniteDifferences
from bench.attacks.descents import PRESETS, FiniteDifferencePGD
from bench.errors import UsageError
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.threat import Norm
from tests.attacks.worlds import PIXELS, Function, broken, linear_problem, pose, solve


def part(problem: Problem, rows: list[int]) -> Problem:
    """The same problem with some of its examples."""
    return dataclasses.replace(problem, inputs=problem.inputs[rows], labels=problem.labels[rows])


def forwards(problem: Problem) -> int:
    """Forwards that the model has counted."""
    assert isinstance(problem.model, CountedModel)
    return problem.model.forwards


def linear_of(problem: Problem) -> nn.Linear:
    """The linear layer of a linear problem."""
    assert isinstance(problem.model, CountedModel)
    (linear,) = [layer for layer in problem.model.modules() if isinstance(layer, nn.Linear)]
    return linear


def in_float64(problem: Problem) -> Problem:
    """The same linear model, computed in float64: batches do not change its float32 logits."""
    linear = linear_of(problem)
    weight, bias = linear.weight.double(), linear.bias.double()
    module = Function(lambda x: (x.flatten(1).double() @ weight.T + bias).float())
    return pose(
        module,
        problem.inputs,
        problem.labels,
        norm=problem.norm,
        epsilon=problem.epsilon,
        classes=problem.classes,
    )


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_it_reaches_the_exact_robust_accuracy_of_a_linear_model(norm: Norm, classes: int) -> None:
    """Exactly the examples within epsilon of the border; by its light preset, 0.9 epsilon at most.

    Whatever the seed.
    """
    problem, exact = linear_problem(classes, norm, 20)
    epsilon = problem.epsilon or 0.0
    for seed in range(5):
        problem = dataclasses.replace(problem, seed=seed)
        found = broken(problem, solve("fd-pgd[preset=medium]", problem))
        assert found.tolist() == (exact <= epsilon).tolist()
        light = broken(problem, solve("fd-pgd", problem))
        assert not (light & (exact > epsilon)).any()
        assert light[exact <= 0.9 * epsilon].all()


def test_orthogonal_points_give_a_linear_gradient_without_noise() -> None:
    """With as many pairs as pixels the estimate is the direction of the weights."""
    problem, _ = linear_problem(2, Norm.LINF, 3)
    look = FiniteDifferences(problem, Streams(problem, "test"), 0.1, [2 * PIXELS], orthogonal=True)
    _, gradient = look(problem.inputs, torch.arange(3), 0)
    assert gradient is not None
    weight = linear_of(problem).weight
    towards = weight[problem.labels] - weight[1 - problem.labels]
    cosine = torch.nn.functional.cosine_similarity(gradient.flatten(1), towards)
    assert float(cosine.min()) > 0.9


def test_an_estimate_is_unbiased() -> None:
    """The mean over many pairs comes near the gradient itself, in size and direction."""
    problem, _ = linear_problem(2, Norm.LINF, 1)
    look = FiniteDifferences(problem, Streams(problem, "test"), 0.1, [40_000])
    _, gradient = look(problem.inputs, torch.arange(1), 0)
    assert gradient is not None
    weight = linear_of(problem).weight
    towards = (weight[problem.labels] - weight[1 - problem.labels]).flatten()
    assert float((gradient.flatten() - towards).norm() / towards.norm()) < 0.1


@pytest.mark.parametrize("preset", ["light", "medium"])
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_an_example_gets_the_same_candidate_in_every_batch(norm: Norm, preset: str) -> None:
    """To the last bit: alone, with some others, and in another order."""
    problem = in_float64(linear_problem(4, norm, 8)[0])
    problem = dataclasses.replace(problem, epsilon=0.8 * (problem.epsilon or 0))
    name = f"fd-pgd[preset={preset}]" if preset == "light" else "fd-pgd[restarts=2]"
    whole = solve(name, problem).candidates
    for rows in ([3], [6, 1, 5], [7, 6, 5, 4, 3, 2, 1, 0]):
        assert solve(name, part(problem, rows)).candidates.equal(whole[rows])


def test_the_global_generators_do_not_matter() -> None:
    """Its randomness comes from the seed of the problem alone."""
    problem = linear_problem(4, Norm.LINF, 6)[0]
    first, second = solve("fd-pgd", problem, seed=1), solve("fd-pgd", problem, seed=2)
    other = solve("fd-pgd", dataclasses.replace(problem, seed=8), seed=1)
    assert first.candidates.equal(second.candidates)
    assert not first.candidates.equal(other.candidates)


def test_a_broken_example_is_left_alone() -> None:
    """It costs less than one that holds, and its own count says so."""
    problem, exact = linear_problem(2, Norm.LINF, 10)
    assert problem.epsilon is not None
    before = forwards(problem)
    proposal = solve("fd-pgd", problem)
    taken = proposal.extra["forwards"]
    assert taken.sum() == forwards(problem) - before
    holds = exact > problem.epsilon
    assert set(taken[holds]) == {PRESETS["light"].forwards}
    assert taken[~holds].max() < PRESETS["light"].forwards / 2


def test_a_model_whose_gradient_is_zero_is_broken_all_the_same() -> None:
    """Rounded inputs give no gradient, and differences see through them."""
    problem, exact = linear_problem(2, Norm.LINF, 10)
    assert isinstance(problem.model, CountedModel)
    linear = problem.model.module
    rounded = Function(lambda x: linear((x * 50).round() / 50))
    labels = rounded(problem.inputs).argmax(dim=1)
    hidden = pose(rounded, problem.inputs, labels, epsilon=2 * exact.max(), classes=2)
    assert broken(hidden, solve("fd-pgd", hidden)).all()
    assert not broken(hidden, solve("margin-pgd", hidden)).all()


def test_probes_are_not_clipped_and_batches_are_bounded() -> None:
    """The model sees points outside the box, and never more than 4,096 at once."""
    sizes: list[int] = []
    lows: list[float] = []

    def watch(x: Tensor) -> Tensor:
        sizes.append(len(x))
        lows.append(float(x.min()))
        return torch.stack([torch.ones(len(x)), x.flatten(1).mean(dim=1)], dim=1)

    inputs = torch.zeros(3, 1, 6, 6)
    problem = pose(Function(watch), inputs, torch.zeros(3).long(), classes=2)
    FiniteDifferences(problem, Streams(problem, "test"), 0.1, [5_000])(inputs, torch.arange(3), 0)
    assert min(lows) < 0
    assert max(sizes) <= 4_096
    assert sum(sizes) == 3 + 3 * 5_000


def test_the_published_schedule() -> None:
    """100 steps of 0.32 epsilon, 1.2 million forwards, as published against k-WTA."""
    schedule = PRESETS["tramer"]
    assert (schedule.sigma, schedule.step, schedule.steps) == (1.0, 0.32, 100)
    assert [schedule.points[step] for step in (0, 19, 20, 39, 40, 99)] == [
        100, 100, 1_000, 1_000, 20_000, 20_000,
    ]  # fmt: skip
    assert schedule.forwards == 1_222_101
    assert not schedule.decay
    assert not schedule.momentum
    assert not schedule.orthogonal


def test_presets_cost_what_they_say() -> None:
    """As its docstring has it."""
    light, medium = PRESETS["light"].forwards, PRESETS["medium"].forwards
    assert light == 661
    assert 23_900 < medium < 24_200


def test_parameters_are_checked() -> None:
    """A preset that does not exist is refused by name."""
    with pytest.raises(UsageError, match="preset has to be one of light, medium, tramer"):
        FiniteDifferencePGD(preset="fast")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="sigma has to be greater than 0"):
        attacks.create("fd-pgd[sigma=-1.0]")
    assert np.isclose(FiniteDifferencePGD(sigma=0.25).schedule.sigma, 0.25)
