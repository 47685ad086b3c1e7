"""Descent on the margin: closed forms, the trace of its path, models without a gradient."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.api import Problem
from bench.api.attacks import margins
from bench.attacks.blocks.ball import Ball
from bench.attacks.blocks.descent import OwnGradient, Path, Search, trace
from bench.models.counted import CountedModel
from bench.threat import Norm
from bench.trust.measurements import WORSENED
from tests.attacks.worlds import SHAPE, Function, broken, linear_problem, pose, solve

TRACES = {
    "silent_success", "incomplete", "worsened", "zero_gradient",
    "trace_margin_first", "trace_margin_last", "trace_margin_best",
}  # fmt: skip


@pytest.mark.parametrize("classes", [2, 10])
@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
@pytest.mark.parametrize("name", ["margin-pgd", "averaged-pgd", "eot-pgd[draws=2]"])
def test_it_reaches_the_exact_robust_accuracy_of_a_linear_model(
    name: str, norm: Norm, classes: int
) -> None:
    """It breaks exactly the examples whose distance to the border is within epsilon."""
    problem, exact = linear_problem(classes, norm, 20)
    assert problem.epsilon is not None
    found = broken(problem, solve(name, problem))
    assert found.tolist() == (exact <= problem.epsilon).tolist()


def test_the_best_iterate_of_a_linear_model_has_the_closed_form_margin() -> None:
    """With two classes the lowest margin is the clean one less epsilon times the dual norm."""
    problem, exact = linear_problem(2, Norm.LINF, 10)
    extra = solve("margin-pgd", problem).extra
    expected = extra["trace_margin_first"] * (1 - (problem.epsilon or 0) / exact)
    np.testing.assert_allclose(extra["trace_margin_best"], expected, atol=1e-3)


@pytest.mark.parametrize(
    "answer",
    [
        lambda linear, x: linear(x).detach(),
        lambda linear, x: linear((x * 50).round() / 50),
        lambda linear, x: linear(x.detach()) + 0 * x.sum(),
        lambda linear, x: linear(x) + (x - x).flatten(1).sum(dim=1, keepdim=True).sqrt(),
    ],
    ids=["none", "zero", "unconnected", "not finite"],
)
def test_a_missing_gradient_is_a_finding_and_no_error(
    answer: Callable[[torch.nn.Module, Tensor], Tensor],
) -> None:
    """Missing, zero, not finite: all are marked, and an honest gradient is not."""
    problem, _ = linear_problem(3, Norm.LINF, 4)
    assert not solve("margin-pgd", problem).extra["zero_gradient"].any()
    assert isinstance(problem.model, CountedModel)
    linear = problem.model.module
    hidden = pose(Function(lambda x: answer(linear, x)), problem.inputs, problem.labels, classes=3)
    for name in ("margin-pgd", "eot-pgd[draws=2]"):
        proposal = solve(name, hidden)
        assert proposal.extra["zero_gradient"].all()
        assert bool(proposal.candidates.isfinite().all())
    assert bool(solve("averaged-pgd", hidden).candidates.isfinite().all())


def test_the_trace_of_a_linear_model_shows_no_failure() -> None:
    """Nothing is lost, nothing is left undone, and the margin only falls."""
    extra = solve("margin-pgd", linear_problem(2, Norm.LINF, 10)[0]).extra
    assert extra.keys() == TRACES
    for name in ("silent_success", "incomplete", "worsened", "zero_gradient"):
        assert not extra[name].any()


def bowl(epsilon: float, power: int) -> Problem:
    """A margin that grows with the distance from a point within half of epsilon of each input."""
    generator = torch.Generator().manual_seed(0)
    inputs = 0.4 + 0.2 * torch.rand(20, *SHAPE, generator=generator)
    bottom = inputs + epsilon * (torch.rand(inputs.shape, generator=generator) - 0.5)

    def answer(x: Tensor) -> Tensor:
        away = ((x - bottom) / epsilon).abs().pow(power).flatten(1).sum(dim=1)
        return torch.stack([1 + away, torch.zeros_like(away)], dim=1)

    labels = torch.zeros(20).long()
    return pose(Function(answer), inputs, labels, epsilon=epsilon, classes=2)


@pytest.mark.parametrize("epsilon", [0.03, 0.1, 0.3])
def test_steps_that_fall_do_not_swing_around_the_bottom_of_a_bowl(epsilon: float) -> None:
    """Equal ones of a tenth of epsilon do for ever, where it has an edge along every pixel.

    Of those that fall few go upwards there, and on a smooth bowl none.
    """
    problem = bowl(epsilon, 1)
    look = OwnGradient(problem.model, problem.labels)
    equal = Search(problem).descend(problem.inputs, torch.arange(20), [0.1] * 40, look, leave=False)
    assert trace(equal)["worsened"].mean() > WORSENED
    assert solve("margin-pgd[restarts=1]", problem).extra["worsened"].mean() < WORSENED
    smooth = solve("margin-pgd[restarts=1]", bowl(epsilon, 2)).extra
    assert not smooth["worsened"].any()
    assert not smooth["incomplete"].any()
    np.testing.assert_allclose(smooth["trace_margin_best"], 1, atol=0.01)


def test_a_gradient_that_is_noise_makes_the_loss_worse() -> None:
    """Whatever the epsilon: about every second of the small steps goes the wrong way."""
    weights = torch.randn(36, generator=torch.Generator().manual_seed(0))

    def noisy(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        slope = ((flat - flat.detach()) * torch.randn_like(flat)).sum(dim=1)
        margin = 9 + ((flat - 0.5) @ weights).detach() + slope
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)

    inputs = torch.full((8, *SHAPE), 0.5)
    for epsilon in (0.03, 0.3):
        problem = pose(Function(noisy), inputs, torch.zeros(8).long(), epsilon=epsilon, classes=2)
        assert solve("margin-pgd", problem).extra["worsened"].mean() > 1.5 * WORSENED


def test_each_column_of_the_trace() -> None:
    """Four paths by hand: lost at the end, still falling, zigzagging a little, rising."""
    steps = torch.arange(21).double()
    lost = torch.where(steps == 7, -1.0, 1.0)
    falling = 20 - steps
    settled = torch.where(steps < 5, 5 - steps, 0.01 * (steps % 2))
    rising = torch.where(steps % 2 == 0, 1 + 0.1 * steps, 0.5)
    history = torch.stack([lost, falling, settled, rising], dim=1)
    columns = trace(Path(history, torch.tensor([False, True, False, False])))
    assert columns["silent_success"].tolist() == [True, False, False, False]
    assert columns["incomplete"].tolist() == [False, True, False, False]
    assert columns["worsened"].tolist() == [1 / 20, 0.0, 0.0, 10 / 20]
    assert columns["zero_gradient"].tolist() == [False, True, False, False]
    assert columns["trace_margin_first"].tolist() == [1.0, 20.0, 5.0, 1.0]
    assert columns["trace_margin_last"].tolist() == [1.0, 0.0, 0.0, 3.0]
    assert columns["trace_margin_best"].tolist() == [-1.0, 0.0, 0.0, 0.5]


def test_restarts_go_to_what_is_left() -> None:
    """What the traced descent breaks costs 40 steps, the rest every restart as well."""
    problem, exact = linear_problem(2, Norm.LINF, 10)
    assert isinstance(problem.model, CountedModel)
    left = int((exact > (problem.epsilon or 0)).sum())
    before = problem.model.backwards
    solve("margin-pgd[restarts=3,steps=10]", problem)
    assert problem.model.backwards - before == 40 * 10 + 3 * 10 * left


def test_restarts_reach_what_one_descent_cannot() -> None:
    """A hill around the input hides the border; random points lie beyond it."""

    def hilly(x: Tensor) -> Tensor:
        away = x.flatten(1)[:, 0] - 0.5
        height = torch.where(away.abs() < 0.05, 1 - away.abs(), 0.9 - 20 * (away.abs() - 0.05))
        # Inside the hill the gradient leads to its foot only when it is not flat there.
        flat = torch.where(away.abs() < 0.05, height.detach(), height)
        return torch.stack([flat, torch.zeros_like(flat)], dim=1)

    inputs, labels = torch.full((4, *SHAPE), 0.5), torch.zeros(4).long()
    problem = pose(Function(hilly), inputs, labels, epsilon=0.15, classes=2)
    proposal = solve("margin-pgd", problem)
    assert broken(problem, proposal).all()
    assert (proposal.extra["trace_margin_best"] > 0).all()


def test_averaging_follows_a_gradient_that_is_noise_at_every_point() -> None:
    """A ripple buries a slope: its own gradient says nothing, the mean around a point does."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(36, generator=generator)

    def rippled(x: Tensor) -> Tensor:
        flat = x.flatten(1)
        ripple = (0.004 * torch.sin(flat * 2_000)).sum(dim=1)
        return torch.stack([(flat - 0.5) @ weight + ripple + 1, torch.zeros(len(x))], dim=1)

    inputs = 0.5 + 0.01 * torch.randn(12, *SHAPE, generator=generator)
    labels = rippled(inputs).argmax(dim=1)
    problem = pose(Function(rippled), inputs, labels, epsilon=0.06, classes=2)
    averaged = broken(problem, solve("averaged-pgd", problem)).sum()
    own = broken(problem, solve("margin-pgd[restarts=1]", problem)).sum()
    assert averaged > own


def test_averaging_does_not_depend_on_the_batch() -> None:
    """An example gets the same points around it in every batch."""
    problem = linear_problem(4, Norm.L2, 6)[0]
    whole = solve("averaged-pgd", problem).candidates
    rows = [4, 1]
    some = dataclasses.replace(problem, inputs=problem.inputs[rows], labels=problem.labels[rows])
    torch.testing.assert_close(solve("averaged-pgd", some).candidates, whole[rows])


def noisy(weight: Tensor, scale: float) -> Function:
    """A linear model with two classes whose input is rotated by chance at every call."""

    def answer(x: Tensor) -> Tensor:
        sign = torch.where(torch.rand(len(x), 36) < scale, -1.0, 1.0)
        margin = ((x.flatten(1) - 0.5) * weight * sign).sum(dim=1) + 0.5
        return torch.stack([margin, torch.zeros_like(margin)], dim=1)

    return Function(answer)


def test_expectation_over_draws_beats_one_draw() -> None:
    """On fresh draws more answers are wrong than after PGD that saw one draw at a time."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(36, generator=generator)
    inputs, labels = torch.full((8, *SHAPE), 0.5), torch.zeros(8).long()
    module = noisy(weight, 0.4)
    problem = pose(module, inputs, labels, epsilon=0.1, classes=2)
    wrong = {}
    for name in ("eot-pgd", "eot-pgd[draws=1]"):
        candidates = solve(name, problem).candidates
        torch.manual_seed(99)
        draws = [module(candidates).argmax(dim=1) != labels for _ in range(200)]
        wrong[name] = float(torch.stack(draws).float().mean())
    assert wrong["eot-pgd"] > wrong["eot-pgd[draws=1]"] + 0.05


def test_expectation_over_draws_is_reproducible_and_leaves_the_generator_alone() -> None:
    """Whatever the global seed is, and the stream goes on as if nothing had been drawn."""
    weight = torch.ones(36)
    inputs, labels = torch.full((2, *SHAPE), 0.5), torch.zeros(2).long()
    problem = pose(noisy(weight, 0.3), inputs, labels, classes=2)
    first = solve("eot-pgd[draws=3]", problem, seed=1).candidates
    assert first.equal(solve("eot-pgd[draws=3]", problem, seed=2).candidates)
    from bench.attacks.blocks.looks import OverDraws

    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    OverDraws(problem, 3)(inputs, torch.arange(2), 0)
    assert torch.rand(1).equal(expected)


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_random_starts_lie_in_the_ball_and_spread(norm: Norm) -> None:
    """None is outside, and they reach far from the input."""
    inputs = torch.full((200, *SHAPE), 0.5)
    uniform = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(0))
    distance = norm.distance(
        inputs, Ball(norm, inputs, torch.full((len(inputs),), 0.3).double()).start(uniform)
    )
    assert 0.25 < float(distance.max()) <= 0.3 + 1e-6


def test_margins_are_negative_where_the_model_is_wrong() -> None:
    """The logit of the label minus the best other one."""
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0]])
    assert margins(logits, torch.tensor([0, 2])).tolist() == [1.0, -1.0]
