"""Faults of a model's answers, each in its own columns, and how rough a margin is."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.api.attacks import margins
from bench.attacks.blocks.ball import untied
from bench.attacks.blocks.behaviour import derivatives
from bench.models.counted import CountedModel
from tests.attacks.probed import CLASSES, SHAPE, linear, measured, posed
from tests.attacks.worlds import Function, pose, solve

if TYPE_CHECKING:
    from collections.abc import Callable


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


def of_an_energy(x: Tensor) -> Tensor:
    """Logits that are themselves a gradient, and differentiable: nothing is hidden by it."""
    with torch.enable_grad():
        point = x if x.requires_grad else x.detach().requires_grad_()
        energy = linear(point).logsumexp(dim=1).sum()
        (slope,) = torch.autograd.grad(energy, point, create_graph=True)
    return linear(x + 0.01 * slope)


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
    "energy": (of_an_energy, set()),
    "NaN": (nan_off_grid, {"nonfinite_near"}),
    "softmax": (lambda x: linear(x).softmax(dim=1), {"probability_output"}),
    "one hot": (one_hot, {"probability_output", "one_hot_output", "border_jump"}),
}
#: Randomness and batches flip classes in each other's columns too, where margins are small.
ALONGSIDE = {
    *("prediction_differs_alone", "prediction_differs_shuffled", "prediction_flips_repeat"),
    "border_jump",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_behaviour(fault: str) -> None:
    """Each fault raises its own columns; an honest model none."""
    function, expected = FAULTS[fault]
    found = measured("probe-behaviour", function)
    rough = ("unstable", "input_jump")
    raised = {c for c, v in found.items() if c not in rough and (np.nan_to_num(v) > 0).any()}
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


@pytest.mark.parametrize("share", [0.0, 0.3, 2.0])
def test_a_margin_that_is_another_one_beside_the_input_is_measured_in_parts_of_it(
    share: float,
) -> None:
    """A margin at the inputs themselves, and another share of it anywhere else."""
    problem = posed(linear, 9, classes=2)
    known = problem.inputs.clone()

    def elsewhere(x: Tensor) -> Tensor:
        here = (x[:, None] == known[None]).flatten(2).all(dim=2).any(dim=1)
        return torch.where(here[:, None], 1.0, 1 + share) * linear(x)[:, :2]

    jumping = dataclasses.replace(problem, model=CountedModel(Function(elsewhere), 2, None, "cpu"))
    own = margins(linear(known)[:, :2], problem.labels)
    expected = share * own / own.clamp(min=own.median())
    found = solve("probe-behaviour", jumping).extra["input_jump"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("grey", [0.0, 0.001, 0.5, 1.0])
def test_slopes_and_kinks_at_the_input_are_no_jumps(grey: float) -> None:
    """At the ends of the box as well, however small the margin is beside its slope."""
    inputs = torch.full((3, *SHAPE), grey)
    inputs[1:, 0, :2, :2] = 1 - grey
    inputs[2, 0, 2:, 2:] = 0.3

    def bent(x: Tensor) -> Tensor:
        """A margin of 0.1, a slope by which it doubles, and a kink at the inputs themselves."""
        away = x[:, None] - inputs
        nearest = away.abs().flatten(2).sum(dim=2).argmin(dim=1)
        away = away[torch.arange(len(x)), nearest].flatten(1)
        first = 0.1 + 50 * away.mean(dim=1) + 3 * away.abs().mean(dim=1)
        return torch.stack([first, 0 * first], dim=1)

    problem = pose(Function(bent), inputs, torch.zeros(3, dtype=torch.int64), classes=2)
    assert solve("probe-behaviour", problem).extra["input_jump"].max() < 1e-4


def test_nothing_is_said_of_inputs_that_are_wrong() -> None:
    """Nor of any where all are."""
    problem = posed(lambda x: linear(x)[:, :2], 4, classes=2)
    problem.labels[1] = 1 - problem.labels[1]
    assert np.isnan(solve("probe-behaviour", problem).extra["input_jump"]).tolist() == [
        False, True, False, False,
    ]  # fmt: skip
    problem.labels[:] = 1 - linear(problem.inputs)[:, :2].argmax(dim=1)
    assert np.isnan(solve("probe-behaviour", problem).extra["input_jump"]).all()
