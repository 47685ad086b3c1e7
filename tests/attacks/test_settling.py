"""What is broken beyond doubt leaves the batch, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from bench.attacks.blocks import catch
from bench.attacks.blocks.watching import Recorder, Settled
from bench.models.counted import CountedModel
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
    recorder = Recorder(problem)
    recorder(problem.inputs)
    assert recorder.catch.found.all()
    assert recorder.catch.settled.tolist() == [settled] * 3


def test_settled_examples_keep_their_logits_and_have_no_gradient() -> None:
    """The others are asked about; when none is left, the search ends."""
    problem = pose(
        Function(lambda x: column(torch.full((len(x),), 0.5), x.flatten(1).mean(1))),
        torch.tensor([0.4, 0.6]).reshape(2, 1, 1, 1).expand(2, *SHAPE).contiguous(),
        torch.zeros(2).long(),
        epsilon=0.3,
        classes=2,
    )
    recorder = Recorder(problem)
    first = recorder(problem.inputs)
    x = (problem.inputs + 0.05).requires_grad_()
    second = recorder(x)
    (gradient,) = torch.autograd.grad(second.sum(), x)
    assert recorder.catch.settled.tolist() == [False, True]
    assert second[1].equal(first[1])
    assert second[0, 1].item() == pytest.approx(0.45)
    assert gradient[0].abs().sum() > 0
    assert gradient[1].abs().sum() == 0
    assert passes(problem)[0] == 3
    recorder(problem.inputs + 0.2)
    with pytest.raises(Settled):
        recorder(problem.inputs)


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
