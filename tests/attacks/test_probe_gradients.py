"""What a gradient promises against what differences find, on models whose answer is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.attacks.probes import correlation
from tests.attacks.probed import linear, measured, posed
from tests.attacks.worlds import solve

if TYPE_CHECKING:
    from collections.abc import Callable


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


def test_correlation_is_numpys() -> None:
    """Column by column, at any scale; NaN for a constant."""
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 32, 4))
    expected = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(correlation(a * 1e200, b * 1e-200), expected)
    assert np.isnan(correlation(a * 0 + 3, b)).all()
