"""Planted adversarial examples: that they are there, and who finds them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.api import PLANTED, Problem
from bench.api.attacks import radius
from bench.attacks.blocks.planting import GRID, Planting, in_blocks, plant
from bench.data import open_dataset, subset
from bench.matrix.plan import Planned, Setting, plan_cell
from bench.models.contenders import Contender, Lineup
from bench.models.counted import CountedModel
from bench.record.schema import Cell
from bench.registry import attacks
from bench.threat import Epsilon, Norm
from tests.attacks.worlds import Function, grey, linear_problem, pose, solve

PROBE = "probe-planted"
#: The searches on a model's own gradient.
OWN = ("apgd-ce", "margin-pgd[restarts=3]")


@pytest.fixture(scope="module")
def linear() -> Problem:
    """Examples of a linear model in the middle of the box."""
    return linear_problem(4, Norm.LINF, 12)[0]


@pytest.fixture(scope="module")
def planting(linear: Problem) -> Planting:
    """Planted in the linear model."""
    return plant(linear)


def module_of(problem: Problem) -> nn.Module:
    """The module in its counted model."""
    module = problem.model.module
    assert isinstance(module, nn.Module)
    return module


def score(planting: Planting, x: Tensor) -> Tensor:
    """How far class 1 is ahead."""
    with torch.no_grad():
        logits: Tensor = planting.problem.model(x)
    return logits[:, 1] - logits[:, 0]


def test_examples_too_near_to_another_are_left_out_with_all_that_belongs_to_them() -> None:
    """Names of the examples as well, as in a run, so that the search goes over those that stay."""
    problem = linear_problem(4, Norm.LINF, 6)[0]
    twice = problem.part(torch.tensor([0, 1, 1, 2, 3, 3]), examples=torch.arange(10, 16))

    found = plant(twice)

    assert found.rows.tolist() == [0, 1, 3, 4]
    assert found.problem.examples is not None
    assert found.problem.examples.tolist() == [10, 11, 13, 14]
    assert solve("apgd-ce", found.problem).candidates.shape == found.known.shape


def test_what_is_planted_is_an_adversarial_example(linear: Problem, planting: Planting) -> None:
    """In the ball and the box, of class 1, and the input itself is of class 0."""
    inputs, known = linear.inputs[planting.rows], planting.known
    assert planting.rows.tolist() == list(range(12))
    assert known.min() >= 0
    assert known.max() <= 1
    assert (known - inputs).abs().max() <= radius(linear) + 1e-6
    assert (score(planting, known) > 0).all()
    assert (score(planting, inputs) < 0).all()


def test_margins_are_the_model_s_own(linear: Problem, planting: Planting) -> None:
    """At the examples, whatever direction is read."""
    with torch.no_grad():
        top = linear.model(linear.inputs).topk(2).values
    torch.testing.assert_close(-score(planting, linear.inputs), top[:, 0] - top[:, 1])


def test_what_is_planted_is_nearly_the_furthest_of_a_linear_model(
    linear: Problem, planting: Planting
) -> None:
    """A gradient shows the furthest corner at once; the one known is further than most random."""
    inputs = linear.inputs.clone().requires_grad_()
    with torch.enable_grad():
        logits = planting.problem.model(inputs)
        (gradient,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), inputs)
    furthest = score(planting, linear.inputs + radius(linear) * gradient.sign())
    at, known = score(planting, linear.inputs), score(planting, planting.known)
    share = (known - at) / (furthest - at)
    assert (share <= 1 + 1e-5).all()
    assert share.min() > 0.6


def test_a_point_is_read_by_its_own_centre(linear: Problem, planting: Planting) -> None:
    """Each example planted alone, with nothing else to be near to, is read alike in its ball."""
    generator = torch.Generator().manual_seed(0)
    noise = 2 * torch.rand(linear.inputs.shape, generator=generator) - 1
    points = linear.inputs + radius(linear) * noise
    together = score(planting, points)
    for row in range(3):
        one = slice(row, row + 1)
        alone = dataclasses.replace(linear, inputs=linear.inputs[one], labels=linear.labels[one])
        torch.testing.assert_close(score(plant(alone), points[one]), together[one])


def test_examples_whose_balls_meet_get_one_between_them(linear: Problem) -> None:
    """A point in both could be read either way."""
    near = linear.inputs[:1] + 1.9 * radius(linear)
    posed = dataclasses.replace(
        linear,
        inputs=torch.cat([linear.inputs[:2], near]),
        labels=linear.labels[[0, 1, 0]],
    )
    assert plant(posed).rows.tolist() == [0, 1]


def test_a_corner_is_constant_on_blocks() -> None:
    """28 lines make 8 blocks of 3 or 4; a small image has one pixel a block."""
    large = in_blocks(torch.randn(3, 28, 28, generator=torch.Generator().manual_seed(0)))
    assert [len(channel.unique()) for channel in large] == [GRID**2] * 3
    _, lines = np.unique(large[0, :, 0].numpy(), return_counts=True)
    assert set(lines.tolist()) == {3, 4}
    small = torch.arange(36.0).reshape(1, 6, 6)
    assert torch.equal(in_blocks(small), small)


def test_attacks_that_follow_a_right_gradient_find_all(linear: Problem) -> None:
    """On a linear model a gradient points at the furthest corner."""
    found = solve(PROBE, linear).extra
    assert found["planted"].all()
    assert not found["planted_by_chance"].all()
    for attack in OWN:
        assert found[PLANTED + attack].all()


class Masked(nn.Module):
    """A model whose gradient has the wrong sign."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """Its logits."""
        logits: Tensor = self.model(2 * x.detach() - x)
        return logits


def test_attacks_that_a_gradient_misleads_find_none(linear: Problem) -> None:
    """They climb away from what is known to be there, and spend what the cost says."""
    model = CountedModel(Masked(module_of(linear)), 4, None, "cpu")
    found = solve(PROBE, dataclasses.replace(linear, model=model)).extra
    assert found["planted"].all()
    for attack in OWN:
        assert not found[PLANTED + attack].any()
    cost = attacks.create(PROBE).cost(norm=Norm.LINF, shape=(1, 6, 6), classes=4)
    assert 0.7 * cost.total <= model.passes.total / 12 <= cost.total


def test_probabilities_are_read_by_their_logarithms(linear: Problem) -> None:
    """They differ from the logits by what is the same for all classes, which no readout sees."""
    probable = nn.Sequential(module_of(linear), nn.Softmax(dim=1))
    posed = dataclasses.replace(linear, model=CountedModel(probable, 4, None, "cpu"))
    ours, theirs = plant(linear), plant(posed)
    assert torch.equal(ours.known, theirs.known)
    torch.testing.assert_close(
        score(theirs, theirs.known), score(ours, ours.known), rtol=1e-3, atol=1e-4
    )


def test_nothing_is_planted_where_nothing_changes() -> None:
    """A constant model; and a randomised one, whose answers do not stay."""
    inputs = grey(2, 0.2) + torch.tensor([0.0, 0.5]).reshape(2, 1, 1, 1)
    logits = torch.tensor([1.0, 0.0, 0.0])
    constant = pose(
        Function(lambda x: logits.expand(len(x), -1) + 0 * x.flatten(1)[:, :1]),
        inputs,
        torch.zeros(2, dtype=torch.int64),
        classes=3,
    )
    linear = linear_problem(4, Norm.LINF, 4)[0]
    for problem in (constant, dataclasses.replace(linear, randomised=True)):
        found = solve(PROBE, problem).extra
        assert not found["planted"].any()
        assert all(np.isnan(found[PLANTED + attack]).all() for attack in OWN)


def test_it_is_left_out_where_it_was_not_measured() -> None:
    """In other norms, and on larger images."""
    probe = attacks.create(PROBE)
    assert probe.why_not(norm=Norm.LINF, shape=(3, 32, 32), classes=10) is None
    assert "L2" not in (probe.why_not(norm=Norm.L2, shape=(3, 32, 32), classes=10) or "L2")
    assert "64 x 64" in (probe.why_not(norm=Norm.LINF, shape=(3, 64, 64), classes=10) or "")


def test_its_key_holds_the_versions_of_what_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of an attack finds other examples: what is stored does not count for it."""
    probe = attacks.create(PROBE)
    assert set(OWN) <= probe.depends().keys()
    examples = subset(open_dataset("digits").load("test"), 4)
    (contender,) = Lineup("digits", examples).asked(("relu",))

    def key() -> str:
        return planned(contender).key

    before = key()
    assert key() == before
    monkeypatch.setattr(attacks.get("apgd-ce"), "version", 99)
    assert key() != before


def planned(contender: Contender) -> Planned:
    """The probe's cell for a defense."""
    setting = Setting(
        norm=Norm.LINF,
        epsilons=(Epsilon.parse("0.1"),),
        seed=0,
        n=4,
        shape=(1, 8, 8),
        classes=10,
        data_digest="",
        device_type="cpu",
        shard_size=50,
    )
    cell = Cell(attack=PROBE, epsilon="0.1", scope="evidence")
    return plan_cell(cell, contender, attacks.create(PROBE), setting)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("name", "honest"),
    [("relu", True), ("relu-at", True), ("kwta", False), ("kwta-at", False)],
)
def test_committed_checkpoints(name: str, honest: bool) -> None:
    """Attacks on the gradient find what is planted in ReLU, and far from all of it in k-WTA."""
    examples = open_dataset("digits").load("test")
    (contender,) = Lineup("digits", examples).asked((name,))
    model = CountedModel(contender.load(), 10, None, "cpu")
    inputs, labels = examples.inputs[400:430], examples.labels[400:430]
    with torch.no_grad():
        right = model(inputs).argmax(dim=1) == labels
    posed = Problem(model, inputs[right], labels[right], Norm.LINF, 0.1, 10, 7)
    found = solve(PROBE, posed).extra
    planted = found["planted"].sum()
    together = np.any([found[PLANTED + attack] == 1 for attack in OWN], axis=0).sum()
    assert planted >= 0.9 * len(posed.labels)
    assert found["planted_by_chance"].sum() < 0.5 * planted
    if honest:
        assert together >= 0.95 * planted
    else:
        assert together < 0.85 * planted
