"""Our own engine of AutoAttack: a result for each row by itself, and the exact curve."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from bench.attacks.blocks import batches, catch, square
from bench.attacks.blocks.ball import Ball
from bench.attacks.blocks.patches import ShiftedPatches
from bench.attacks.blocks.square import Stripes
from bench.models.counted import CountedModel
from bench.threat import Norm
from tests.attacks.worlds import (
    PIXELS,
    SHAPE,
    Function,
    Noted,
    distances,
    grey,
    linear_problem,
    pose,
    solve,
)

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem, Proposal

EPSILON = {Norm.LINF: 0.02, Norm.L2: 0.15, Norm.L1: 0.8}
SMALL = {**EPSILON, Norm.L1: 0.2}
ROWS = ["apgd-ce", "apgd-dlr", "apgd-t", "square[queries=60]"]


def apart() -> nn.Module:
    """A network whose rows do not mix, not even in the order of additions."""
    generator = torch.Generator().manual_seed(5)
    first = torch.randn(12, PIXELS, generator=generator) / 3
    second = torch.randn(5, 12, generator=generator)

    def logits(x: Tensor) -> Tensor:
        hidden = (x.flatten(1)[:, None] * first).sum(dim=2).tanh()
        return (hidden[:, None] * second).sum(dim=2)

    return Function(logits)


def sweep(norm: Norm, count: int = 4, bracket: bool = False) -> Problem:
    """A few examples at three epsilons each; some break and some do not."""
    model = apart()
    inputs = torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        labels = model(inputs).argmax(dim=1)
    times = torch.tensor([1.0, 3.0, 9.0], dtype=torch.float64).repeat_interleave(count)
    problem = pose(model, inputs.repeat(3, 1, 1, 1), labels.repeat(3), norm=norm, classes=5)
    return replace(
        problem,
        epsilon=None,
        epsilons=times * SMALL[norm],
        examples=torch.arange(count).repeat(3),
        bracket=bracket,
    )


def run_rows(name: str, problem: Problem, rows: Tensor) -> Proposal:
    """An attack on some rows of a problem."""
    return solve(name, problem.part(rows))


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", ROWS)
def test_a_row_s_result_is_its_own(name: str, norm: Norm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: without the others, in another order, in small batches, one call a radius."""
    problem = sweep(norm)
    whole = solve(name, problem).candidates
    assert 0 < int((whole != problem.inputs).flatten(1).any(dim=1).sum()) < len(whole)

    other = torch.tensor([7, 0, 10, 5, 3])
    assert run_rows(name, problem, other).candidates.equal(whole[other])
    monkeypatch.setattr(batches, "ROWS", 2)
    monkeypatch.setattr(batches, "FEWEST", 2)
    assert solve(name, problem).candidates.equal(whole)
    rows, epsilons = torch.arange(4, 8), problem.epsilons
    assert epsilons is not None
    alone = replace(problem.part(rows), epsilon=float(epsilons[4]), epsilons=None, examples=None)
    assert solve(name, alone).candidates.equal(whole[rows])


@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("name", ROWS)
def test_candidates_lie_in_the_ball_of_their_row(name: str, norm: Norm) -> None:
    """Each within its own radius, and in the box."""
    problem = sweep(norm)
    candidates = solve(name, problem).candidates
    found = (candidates != problem.inputs).flatten(1).any(dim=1)
    far = distances(norm, problem.inputs, candidates)
    assert problem.epsilons is not None
    assert (far <= problem.epsilons.numpy() + 1e-6).all()
    assert far[found.numpy()].max() > SMALL[norm]  # a larger ball is used
    assert float(candidates.min()) >= 0
    assert float(candidates.max()) <= 1


def test_proposals_ahead_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several proposals of a row in one call are the search of one at a time, for fewer calls.

    So is one in small batches, in which rows enter at other times than those beside them.
    """
    problem = sweep(Norm.LINF)
    calls, found = [], []
    for ahead, rows in ((1, batches.ROWS), (50, batches.ROWS), (1, 5)):
        monkeypatch.setattr(square, "AHEAD", ahead)
        monkeypatch.setattr(batches, "ROWS", rows)
        monkeypatch.setattr(batches, "FEWEST", 1)
        noted = Noted(problem.model)
        found.append(solve("square[queries=600]", replace(problem, model=noted)).candidates)
        calls.append(len(noted.batches))
    assert found[0].equal(found[1])
    assert found[0].equal(found[2])
    assert calls[2] > calls[0]
    assert calls[1] < calls[0] / 4


def test_squares_reach_the_last_row() -> None:
    """Where all of the bottom row counts and stripes do not do, the library's never get there."""

    def bottom(x: Tensor) -> Tensor:
        rest, last = x[:, 0, :-1].flatten(1), x[:, 0, -1]
        return torch.stack([rest.mean(dim=1), last.mean(dim=1) - 0.15], dim=1)

    problem = pose(Function(bottom), grey(6), torch.zeros(6).long(), epsilon=0.1, classes=2)
    candidates = solve("square[queries=400]", problem).candidates
    assert (candidates[:, 0, -1].mean(dim=1) > 0.55).all()


@pytest.mark.parametrize("norm", list(Norm))
def test_windows_lie_anywhere(norm: Norm) -> None:
    """Each pixel of the border is moved by some proposal, and no proposal is out of the ball."""
    inputs = torch.full((1, *SHAPE), 0.5)
    ball = Ball(norm, inputs, torch.tensor([0.4], dtype=torch.float64))
    moves = Stripes(ball, [3]) if norm is Norm.LINF else ShiftedPatches(ball)
    generator = torch.Generator().manual_seed(1)
    rows = torch.zeros(400, dtype=torch.int64)
    x = moves.start(rows, torch.rand(400, *moves.first, generator=generator))
    draws = torch.rand(400, 1, moves.each, generator=generator)
    plans = moves.planned(rows, draws, torch.full((400, 1), 3))
    moved = moves.moved(rows, x, plans[:, 0], [3])
    touched = (moved - x).abs().sum(dim=0)[0] > 0
    assert touched.all()
    far = distances(norm, inputs.expand_as(moved), moved)
    assert (far <= 0.4 + 1e-6).all()
    assert far.min() > 0.3


def exact_sweep(norm: Norm, bracket: bool) -> tuple[Problem, np.ndarray, np.ndarray]:
    """A linear model at four epsilons around its known distances: problem, distances, epsilons."""
    problem, exact = linear_problem(5, norm, 6)
    order = np.sort(exact)
    values = torch.tensor(
        [order[0] * 0.8, *(order[place : place + 2].mean() for place in (1, 3)), order[-1] * 1.2],
        dtype=torch.float64,
    )
    several = replace(
        problem,
        inputs=problem.inputs.repeat(4, 1, 1, 1),
        labels=problem.labels.repeat(4),
        epsilon=None,
        epsilons=values.repeat_interleave(6),
        examples=torch.arange(6).repeat(4) + 40,
        bracket=bracket,
    )
    return several, np.tile(exact, 4), values.repeat_interleave(6).numpy()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cascade's Square with few queries, where the number does not matter."""
    monkeypatch.setattr("bench.attacks.autoattack.QUERIES", 30)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("norm", list(Norm))
@pytest.mark.parametrize("bracket", [False, True])
def test_the_cascade_finds_the_exact_curve(norm: Norm, bracket: bool) -> None:
    """It breaks what lies within each epsilon; a bracket attacks the largest survived alone."""
    problem, exact, epsilons = exact_sweep(norm, bracket)
    proposal = solve("autoattack", problem)
    with torch.no_grad():
        wrong = problem.model(proposal.candidates).argmax(dim=1) != problem.labels
    assert (distances(norm, problem.inputs, proposal.candidates) <= epsilons + 1e-6).all()
    assert wrong.tolist() == (exact <= epsilons).tolist()
    assert proposal.attacked is not None
    if bracket:
        survived = np.where(exact > epsilons, epsilons, 0).reshape(4, 6)
        top = survived == survived.max(axis=0)
        assert proposal.attacked.tolist() == (wrong.numpy() | top.ravel()).tolist()
    else:
        assert proposal.attacked.all()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("bracket", [False, True])
def test_the_cascade_of_an_example_knows_no_other(bracket: bool) -> None:
    """All rows of an example, alone, give what they give among those of others."""
    problem = sweep(Norm.L2, bracket=bracket)
    whole = solve("autoattack", problem)
    assert whole.attacked is not None
    for example in range(4):
        rows = torch.arange(example, 12, 4)
        alone = run_rows("autoattack", problem, rows)
        assert alone.candidates.equal(whole.candidates[rows])
        assert alone.attacked is not None
        assert alone.attacked.equal(whole.attacked[rows])


@pytest.mark.usefixtures("hurried")
def test_a_bracket_costs_one_cascade_an_example() -> None:
    """Of several survived epsilons the largest is attacked, and the passes are those of one."""
    problem, _, epsilons = exact_sweep(Norm.LINF, True)
    small = torch.from_numpy(epsilons <= epsilons.min() * 1.01)
    rows = torch.cat([torch.where(small)[0]] * 3)
    spread = problem.part(
        rows, epsilons=epsilons.min() * torch.tensor([1.0, 0.9, 0.8]).double().repeat_interleave(6)
    )
    passes = []
    for asked in (spread, spread.part(torch.arange(6))):
        model = asked.model
        assert isinstance(model, CountedModel)
        model.reset_counts()
        proposal = solve("autoattack", asked)
        passes.append(model.passes.total)
    assert proposal.attacked is not None
    assert passes[0] == passes[1]


def test_a_settled_row_leaves_with_its_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """One target that is reached ends the others of that row, and of no other row."""
    monkeypatch.setattr(catch, "SOLID", 0.0)
    problem = sweep(Norm.LINF)
    assert problem.examples is not None
    names = {row: int(example) for row, example in enumerate(problem.examples)}
    noted = Noted(problem.model)
    proposal = solve("apgd-t", replace(problem, model=noted))
    found = (proposal.candidates != problem.inputs).flatten(1).any(dim=1)
    assert 0 < int(found.sum()) < len(names)
    steps = [len(batch) for batch in noted.batches[6:]]  # after the checks of the model
    survivors = int((~found).sum())
    assert steps[100] == survivors
    assert steps[-1] == 3 * survivors  # the three further targets of those that nothing broke
