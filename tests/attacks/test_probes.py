"""What the probes measure on models whose answers are known, and on the committed checkpoints."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.api import Problem
from bench.api.attacks import margins
from bench.attacks.blocks.ball import INSET, JITTER, untied
from bench.attacks.blocks.behaviour import derivatives
from bench.attacks.probes import correlation, gradient
from bench.data import open_dataset, subset
from bench.models.contenders import Lineup
from bench.models.counted import CountedModel
from bench.threat import Norm
from tests.attacks.worlds import Function, pose, solve

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (1, 4, 4)
CLASSES = 3


def weights() -> Tensor:
    """Of a linear model."""
    return torch.randn(CLASSES, 16, generator=torch.Generator().manual_seed(0))


def linear(x: Tensor) -> Tensor:
    """Logits of the linear model."""
    return (x - 0.5).flatten(1) @ weights().T


def posed(function: Callable[[Tensor], Tensor], count: int = 8, classes: int = CLASSES) -> Problem:
    """Examples in the middle of the box, labelled by the linear model."""
    generator = torch.Generator().manual_seed(1)
    inputs = 0.3 + 0.4 * torch.rand(count, *SHAPE, generator=generator)
    labels = linear(inputs)[:, :classes].argmax(dim=1)
    return pose(Function(function), inputs, labels, classes=classes)


def measured(probe: str, function: Callable[[Tensor], Tensor], **more: Any) -> dict[str, Any]:
    """The columns of a probe."""
    extra: dict[str, Any] = solve(probe, posed(function, **more)).extra
    return extra


def test_linear_model_is_faithful() -> None:
    """Differences of a linear margin are its gradient's inner products, to float32 rounding."""
    found = measured("probe-gradients", linear)
    # Where two other classes are close the margin has an edge, so that it is not linear there.
    binary = measured("probe-gradients", lambda x: linear(x)[:, :2], classes=2)
    np.testing.assert_allclose(binary["fidelity"], 1, atol=1e-6)
    assert found["fidelity"].min() > 0.9
    for column in ("no_gradient", "zero_margin_gradient", "zero_ce_gradient", "unmeasured"):
        assert not found[column].any()


def test_quantised_input_has_a_zero_gradient() -> None:
    """Rounding has gradient 0 everywhere, and a fidelity of 0 by definition."""
    found = measured("probe-gradients", lambda x: linear((3 * x).round() / 3))
    assert found["zero_margin_gradient"].all()
    assert found["zero_ce_gradient"].all()
    assert (found["fidelity"] == 0).all()
    assert not found["no_gradient"].any()


def raising(x: Tensor) -> Tensor:
    """Logits whose backward pass raises."""

    class Refuse(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            raise ValueError("no")

    logits: Tensor = linear(Refuse.apply(x))
    return logits


def infinite(x: Tensor) -> Tensor:
    """Logits whose gradient is infinite."""
    return linear(x) + (x - x.detach()).flatten(1).sum(1, keepdim=True).abs().sqrt() * torch.tensor(
        [1.0, 0.0, 0.0]
    )


@pytest.mark.parametrize("function", [lambda x: linear(x.detach()), raising, infinite])
def test_missing_gradients_do_not_raise(function: Callable[[Tensor], Tensor]) -> None:
    """Detached, raising and infinite ones are told apart from zero."""
    found = measured("probe-gradients", function)
    assert found["no_gradient"].all()
    assert not found["zero_margin_gradient"].any()
    assert np.isnan(found["fidelity"]).all()


def test_straight_through_gradient_over_constant_output_is_nan() -> None:
    """A gradient that promises a change that never comes."""
    found = measured("probe-gradients", lambda x: linear((x * 2).round() / 2 + (x - x.detach())))
    assert np.isnan(found["fidelity"]).all()
    assert not found["zero_margin_gradient"].any()


def test_large_logits_flatten_the_cross_entropy_alone() -> None:
    """The margin keeps its gradient and its fidelity."""
    found = measured("probe-gradients", lambda x: 1e5 * linear(x))
    assert found["zero_ce_gradient"].all()
    assert not found["zero_margin_gradient"].any()
    assert found["fidelity"].min() > 0.9


def test_clipping_the_input_is_no_fault() -> None:
    """Not even where pixels are black or white."""
    problem = posed(lambda x: linear(x.clamp(0, 1))[:, :2], classes=2)
    problem.inputs[:] = problem.inputs.round()
    np.testing.assert_allclose(solve("probe-gradients", problem).extra["fidelity"], 1, atol=1e-6)


@pytest.mark.parametrize("probe", ["probe-gradients", "probe-behaviour"])
def test_an_example_gets_the_same_in_any_batch(probe: str) -> None:
    """Its random numbers are its own."""
    columns = ("fidelity",) if probe == "probe-gradients" else ("unstable", "nonfinite_near")
    problem = posed(lambda x: torch.sin(9 * linear(x)))
    whole = solve(probe, problem).extra
    chosen = torch.tensor([5, 2])
    part = Problem(
        problem.model, problem.inputs[chosen], problem.labels[chosen], Norm.LINF, 0.1, CLASSES, 7
    )
    for column in columns:
        np.testing.assert_allclose(solve(probe, part).extra[column], whole[column][[5, 2]])


def test_candidates_are_the_inputs() -> None:
    """A probe proposes nothing."""
    problem = posed(linear)
    for probe in ("probe-gradients", "probe-behaviour"):
        assert torch.equal(solve(probe, problem).candidates, problem.inputs)


def alike(x: Tensor) -> Tensor:
    """Logits through a batch norm that uses its batch."""
    return linear(functional.batch_norm(x, None, None, training=True) / 4 + 0.5)


def mutating(x: Tensor) -> Tensor:
    """Logits; the input is halved on the way."""
    with torch.no_grad():
        x.mul_(0.5)
    return linear(2 * x)


def optimising(x: Tensor) -> Tensor:
    """Logits after a gradient step inside."""
    with torch.enable_grad():
        point = x.detach().clone().requires_grad_()
        linear(point).logsumexp(dim=1).sum().backward()  # type: ignore[no-untyped-call]
    assert point.grad is not None
    return linear(x + 0.01 * point.grad)


class Counting(nn.Module):
    """Its answers drift with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """Logits, turned a little."""
        self.calls += 1
        return linear(x) + 0.01 * self.calls * torch.tensor([1.0, 0.0, 0.0])


def nan_off_grid(x: Tensor) -> Tensor:
    """NaN where the first pixel is black or white."""
    edge = (x[:, 0, 0, 0] == 0) | (x[:, 0, 0, 0] == 1)
    return linear(x).masked_fill(edge[:, None], torch.nan)


def one_hot(x: Tensor) -> Tensor:
    """The decision."""
    return functional.one_hot(linear(x).argmax(dim=1), CLASSES).float()


FAULTS: dict[str, tuple[Callable[[Tensor], Tensor], set[str]]] = {
    "honest": (linear, set()),
    "noise": (
        lambda x: linear(x + 0.3 * torch.randn_like(x)),
        {"logits_differ_repeat", "prediction_flips_repeat"},
    ),
    "numpy": (
        lambda x: linear(x) + float(np.random.rand() + random.random()) * torch.eye(3)[0],  # noqa: NPY002
        {"logits_differ_repeat"},
    ),
    "state": (Counting(), {"logits_differ_repeat", "state_differs"}),
    "batch": (alike, {"prediction_differs_alone"}),
    "mutation": (mutating, set()),  # it gets copies
    "optimiser": (optimising, {"optimises_in_forward"}),
    "NaN": (nan_off_grid, {"nonfinite_near"}),
    "softmax": (lambda x: linear(x).softmax(dim=1), {"probability_output"}),
    "one hot": (one_hot, {"probability_output", "one_hot_output"}),
}
#: Randomness and batches flip classes in each other's columns too, where margins are small.
ALONGSIDE = {"prediction_differs_alone", "prediction_differs_shuffled", "prediction_flips_repeat"}


@pytest.mark.parametrize("fault", FAULTS)
def test_behaviour(fault: str) -> None:
    """Each fault raises its own columns; an honest model none."""
    function, expected = FAULTS[fault]
    found = measured("probe-behaviour", function)
    raised = {c for c, v in found.items() if c != "unstable" and (np.nan_to_num(v) > 0).any()}
    assert expected <= raised
    assert raised - expected <= (
        ALONGSIDE if fault in ("noise", "numpy", "state", "batch") else set()
    )


def test_watching_autograd_leaves_no_trace() -> None:
    """After an exception as well."""
    before = torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward
    vector = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match="scalar"), derivatives() as calls:
        vector.backward()  # type: ignore[no-untyped-call]
    assert "backward" in calls
    assert (torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward) == before


def test_what_cannot_be_measured_is_nan() -> None:
    """NaN at one example's own surroundings does not spoil the others."""
    problem = posed(linear)
    known = problem.inputs[3].clone()

    def function(x: Tensor) -> Tensor:
        near = (x - known).abs().flatten(1).amax(dim=1) < 0.05
        here = (x == known).flatten(1).all(dim=1)
        return linear(x).masked_fill((near & ~here)[:, None], torch.nan)

    found = measured("probe-gradients", function)
    assert found["unmeasured"].tolist() == [0, 0, 0, 1, 0, 0, 0, 0]
    assert np.isnan(found["fidelity"]).tolist() == (found["unmeasured"] == 1).tolist()


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


def test_instability_of_a_linear_margin_is_exact() -> None:
    """A slope is none, however small the margin; mean u² of u uniform within 0.01 is 1e-4 / 3."""
    problem = posed(lambda x: torch.stack([x[:, 0, 0, 0] - 0.5, 0 * x[:, 0, 0, 0]], 1), classes=2)
    problem.inputs[:], problem.labels[:] = 0.55, 0
    assert solve("probe-behaviour", problem).extra["unstable"].max() < 1e-4
    bent = posed(
        lambda x: torch.stack([(x[:, 0, 0, 0] - 0.5) ** 2, 0 * x[:, 0, 0, 0]], 1), classes=2
    )
    bent.inputs[:], bent.labels[:] = 0.55, 0
    largest = np.maximum(0.05, untied(bent)[:, 0, 0, 0].double().numpy() - 0.5) ** 2
    found = solve("probe-behaviour[draws=2000]", bent).extra["unstable"]
    np.testing.assert_allclose(found, 1e-4 / 3 / largest, rtol=0.06)


def test_correlation_is_numpys() -> None:
    """Column by column, at any scale; NaN for a constant."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 32, 4))
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(correlation(a * 1e200, b * 1e-200), expected)
    assert np.isnan(correlation(a * 0 + 3, b)).all()


@pytest.mark.parametrize(("name", "honest"), [
    ("relu", True), ("relu-at", True), ("kwta", False), ("kwta-at", False),
])  # fmt: skip
def test_committed_checkpoints(name: str, honest: bool) -> None:
    """Gradients of ReLU are right nearly everywhere, those of k-WTA hardly anywhere."""
    examples = subset(open_dataset("digits").load("test"), 60)
    (contender,) = Lineup("digits", examples).asked((name,))
    model = CountedModel(contender.load(), 10, None, "cpu")
    with torch.no_grad():
        right = model(examples.inputs).argmax(dim=1) == examples.labels
    inputs, labels = examples.inputs[right], examples.labels[right]
    problem = Problem(model, inputs, labels, Norm.LINF, 0.1, 10, 7)
    fidelity = solve("probe-gradients", problem).extra["fidelity"]
    behaviour = solve("probe-behaviour", problem).extra
    if honest:
        assert np.quantile(fidelity, 0.1) > 0.97
        assert (fidelity < 0.5).sum() == 0
    else:
        assert np.median(fidelity) < 0.5
    assert not any(values.any() for column, values in behaviour.items() if column != "unstable")


def test_a_randomised_model_is_measured_by_its_mean_over_draws() -> None:
    """Noise that is the same at both ends of a difference hides nothing; rounding by chance does.

    Read from single draws the same gradient looks as if it said little.
    """

    def noisy(x: Tensor) -> Tensor:
        return linear(x + 0.2 * torch.randn_like(x))[:, :2]

    def dithered(x: Tensor) -> Tensor:
        return linear((8 * x + torch.rand_like(x)).floor() / 8)[:, :2] + 0 * x.sum()

    found = {}
    for name, function, randomised in (
        ("mean", noisy, True), ("single", noisy, False), ("dithered", dithered, True)
    ):  # fmt: skip
        problem = dataclasses.replace(posed(function, classes=2), randomised=randomised)
        found[name] = {
            **solve("probe-gradients", problem).extra, **solve("probe-behaviour", problem).extra
        }  # fmt: skip
    np.testing.assert_allclose(found["mean"]["fidelity"], 1, atol=1e-4)
    assert found["single"]["fidelity"].mean() < 0.7
    assert found["mean"]["unstable"].mean() < found["single"]["unstable"].mean() / 2
    assert found["dithered"]["zero_margin_gradient"].all()
