"""What is broken beyond doubt leaves the batch, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import eagerpy as ep
import foolbox
import numpy as np
import pytest
import torch

from bench.attacks.blocks import catch
from bench.attacks.blocks.adapter import FoolboxAttack
from bench.attacks.blocks.within import Remaining
from bench.models.ambient import plain_torch
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.threat import TOLERANCE, Epsilon, Norm, ThreatModel
from tests.attacks.worlds import SHAPE, Function, broken, column, grey, linear_problem, pose, solve

if TYPE_CHECKING:
    from bench.api import Problem


def passes(problem: Problem) -> tuple[int, int]:
    """What its model has counted."""
    model = problem.model
    assert isinstance(model, CountedModel)
    return model.forwards, model.backwards


NAMES = ["pgd", "mi-fgsm", "adam-pgd", "apgd-ce", "apgd-dlr", "apgd-t"]


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", NAMES)
def test_the_same_examples_are_broken_for_fewer_passes(
    name: str, norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same attack where no example ever leaves."""
    problem, _ = linear_problem(5, norm, 12)
    proposal, spent = solve(name, problem), passes(problem)
    found = broken(problem, proposal)
    monkeypatch.setattr(catch, "SOLID", float("inf"))
    problem, _ = linear_problem(5, norm, 12)
    whole, all_spent = solve(name, problem), passes(problem)

    assert found.tolist() == broken(problem, whole).tolist()
    assert 0 < found.sum() < 12 or norm is Norm.L1
    if found.any():
        assert spent[0] < all_spent[0]
        assert spent[1] < all_spent[1]


def test_a_survivor_costs_what_it_did() -> None:
    """An example that never breaks is asked about at every step, whatever leaves beside it."""
    alone = pose(
        Function(lambda x: column(x.flatten(1).mean(1), torch.zeros(len(x)))),
        grey(1),
        torch.zeros(1).long(),
        epsilon=0.1,
        classes=2,
    )
    solve("pgd", alone)
    assert passes(alone) == (41, 40)
    beside = replace(
        alone,
        inputs=torch.cat([alone.inputs, 0.05 * torch.ones(3, *SHAPE)]),
        labels=torch.zeros(4).long(),
        model=CountedModel(
            Function(lambda x: column(x.flatten(1).mean(1) - 0.04, torch.zeros(len(x)))),
            2, None, "cpu",
        ),
    )  # fmt: skip
    solve("pgd", beside)
    forwards, backwards = passes(beside)
    assert 41 < forwards < 41 + 3 * 20
    assert 40 < backwards < 40 + 3 * 20


def test_the_search_ends_with_the_last_example() -> None:
    """Where all are broken by the start, a hundred steps cost one forward and backward each."""
    problem = pose(
        Function(lambda x: column(x.flatten(1).mean(1), torch.ones(len(x)))),
        grey(4),
        torch.zeros(4).long(),
        epsilon=0.1,
        classes=2,
    )
    proposal = solve("apgd-ce", problem)
    assert broken(problem, proposal).all()
    assert passes(problem)[1] <= 4


@pytest.mark.parametrize(("size", "settled"), [(0.02, True), (0.005, False)])
def test_a_faint_margin_settles_nothing(size: float, settled: bool) -> None:
    """One that rounding could turn is kept, and the search goes on."""
    problem = pose(
        Function(lambda x: column(torch.ones(len(x)), torch.full((len(x),), 1 + size))),
        grey(3),
        torch.zeros(3).long(),
        epsilon=0.1,
        classes=2,
    )
    remaining = Remaining(problem)
    remaining(ep.astensor(problem.inputs))
    assert remaining.catch.found.all()
    assert remaining.catch.settled.tolist() == [settled] * 3


def dark_and_bright(dark: float, bright: float, norm: Norm, epsilon: float) -> Problem:
    """Two grey images, of which a model is wrong about that brighter than 0.5."""
    return pose(
        Function(lambda x: column(torch.full((len(x),), 0.5), x.flatten(1).mean(1))),
        torch.tensor([dark, bright]).reshape(2, 1, 1, 1).expand(2, *SHAPE).contiguous(),
        torch.zeros(2).long(),
        epsilon=epsilon,
        classes=2,
        norm=norm,
    )


def test_settled_examples_are_asked_about_no_more() -> None:
    """The others are, until none is left."""
    problem = dark_and_bright(0.4, 0.6, Norm.LINF, 0.3)
    remaining, x = Remaining(problem), ep.astensor(problem.inputs)
    remaining(x)
    assert remaining.catch.settled.tolist() == [False, True]
    stay = remaining.leave()
    assert stay is not None
    assert stay.tolist() == remaining.rows.tolist() == [0]
    assert remaining(x[:1]).raw[0, 1].item() == pytest.approx(0.4)
    assert remaining.leave() is None
    assert passes(problem)[0] == 3
    remaining(x[:1] + 0.2)
    remaining.leave()
    assert remaining.rows.tolist() == []


def test_one_answer_of_a_randomised_defense_settles_nothing() -> None:
    """It may be right in the next draw."""
    problem, _ = linear_problem(5, Norm.LINF, 12)
    count = int(broken(problem, solve("pgd", problem)).sum())
    assert count > 0
    problem, _ = linear_problem(5, Norm.LINF, 12)
    solve("pgd", replace(problem, randomised=True))
    assert passes(problem) == (41 * 12, 40 * 12)


@pytest.mark.parametrize("norm", list(Norm))
def test_what_is_caught_lies_where_the_judge_allows_it(norm: Norm) -> None:
    """Points some bits around the border of the ball and of the box, one coordinate moved, or all.

    The judge's own measure is `ThreatModel.contains`.
    """
    generator = torch.Generator().manual_seed(5)
    inputs = torch.rand(400, *SHAPE, generator=generator)
    inputs[:40] = inputs[:40].round()  # on the border of the box
    threat = ThreatModel(norm, Epsilon.parse("0.03"))
    moved = torch.rand(inputs.shape, generator=generator) - 0.5
    alone = torch.zeros_like(moved).flatten(1)
    alone[:, 3] = moved.flatten(1)[:, 3]
    moved[::2] = alone.reshape(moved.shape)[::2]
    size = norm.distance(torch.zeros_like(moved), moved).reshape(-1, 1, 1, 1)
    x = (inputs + moved.double() * (0.03 + TOLERANCE) / size).float()
    for _ in range(2):  # two bits out, two in, or none
        out = torch.rand(x.shape, generator=generator) < 0.5
        x = torch.where(out, x.nextafter(x + moved), x.nextafter(inputs))
    x[5, 0, 0, 0] = torch.nan
    problem = pose(
        Function(lambda x: column(torch.zeros(len(x)), torch.ones(len(x)))),
        inputs, torch.zeros(400).long(), epsilon=0.03, classes=2, norm=norm,
    )  # fmt: skip
    kept = catch.Catch(problem)
    logits = column(torch.zeros(400), torch.ones(400))
    kept.offer(torch.arange(400), x, logits)
    expected = threat.contains(inputs, x)
    assert 0 < expected.sum() < 400
    assert torch.equal(kept.found, expected)


DESCENTS = ["fgsm", "pgd", "adam-pgd", "mi-fgsm", "mi-fgsm[accumulate=gradients]"]
LEFT = [(name, norm) for name in DESCENTS for norm in Norm] + [("sparse-l1-descent", Norm.L1)]


@pytest.mark.parametrize(("name", "norm"), LEFT)
def test_what_is_left_goes_the_way_of_foolbox(name: str, norm: Norm) -> None:
    """Foolbox itself on all examples to the end: where nothing was found, it ends at the same."""
    problem, exact = linear_problem(5, norm, 12)
    if norm is Norm.L1:  # its steps go along all pixels, and come less far
        problem = replace(problem, epsilon=float(np.sort(exact)[-3]))
    with plain_torch(seed=7):
        attack = attacks.create(name)
        assert isinstance(attack, FoolboxAttack)
        model = foolbox.PyTorchModel(problem.model, bounds=(0, 1))
        _, ends, wrong = attack.build(norm)(
            model, problem.inputs, problem.labels, epsilons=problem.epsilon
        )
    proposal = solve(name, problem)
    found = torch.from_numpy(broken(problem, proposal))
    assert 0 < found.sum() < 12
    assert (found | ~wrong).all()
    assert torch.allclose(proposal.candidates[~found], ends[~found], rtol=0, atol=1e-5)


def test_a_later_descent_is_of_what_the_earlier_ones_left() -> None:
    """Each starts elsewhere, and what the first one broke costs nothing more."""
    once, _ = linear_problem(5, Norm.LINF, 12)
    left = int((~broken(once, solve("pgd", once))).sum())
    thrice, _ = linear_problem(5, Norm.LINF, 12)
    solve("pgd[restarts=3]", thrice)
    first, all_three = passes(once), passes(thrice)
    further = left * 2 * 40
    assert first[1] < all_three[1] <= first[1] + further


@pytest.mark.parametrize("name", ["uniform-noise", "gaussian-noise"])
def test_noise_is_drawn_for_what_is_left(name: str) -> None:
    """A model that is wrong about the bright one at once is asked 20 times about the other."""
    problem = dark_and_bright(0.1, 0.9, Norm.L2, 0.1)
    proposal = solve(f"{name}[draws=20]", problem)
    assert broken(problem, proposal).tolist() == [False, True]
    assert passes(problem)[0] == 21 + 2  # the judge of this test asks about both
    assert proposal.candidates[0].equal(problem.inputs[0])
