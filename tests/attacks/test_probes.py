"""Both probes: what they propose, and what they say of batches, chance and committed weights."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.api import Problem
from bench.data import open_dataset, subset
from bench.models.contenders import Lineup
from bench.models.counted import CountedModel
from bench.threat import Norm
from tests.attacks.probed import CLASSES, linear, posed
from tests.attacks.worlds import solve


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
    assert (np.mean(behaviour["border_jump"] > 0.02) > 0.8) == (not honest)
    assert np.max(behaviour["border_jump"]) < 1e-4 or not honest
    assert np.max(behaviour["input_jump"]) < 0.002 or not honest
    rough = ("unstable", "input_jump", "border_jump")
    assert not any(values.any() for n, values in behaviour.items() if n not in rough)


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
