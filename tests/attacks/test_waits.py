"""How often attacks make the host wait for a GPU, and that they find the same there."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest
import torch
from scipy import stats

from bench.api import Problem
from bench.attacks.blocks import ball
from bench.attacks.blocks.counters import Counters
from bench.attacks.blocks.keeping import first_lowest, put
from bench.attacks.blocks.looks import _bases, _many_bases
from bench.errors import NonFiniteLogitsError
from bench.models.ambient import plain_torch
from bench.models.counted import TOGETHER, CountedModel
from bench.models.manner import Manner
from bench.registry import attacks
from bench.threat import Norm
from tests.attacks.worlds import SHAPE, Function, network_problem
from tests.pretended import GPU, pretended_gpu

#: Some of the examples break at once, some later, some never.
EPSILON = {Norm.LINF: 0.03, Norm.L2: 0.15, Norm.L1: 0.7}
#: Attacks, and how often they may wait for each time that they ask the model.
WATCHED = [
    ("margin-pgd", Norm.LINF, 1),
    ("pgd", Norm.LINF, 1),
    ("apgd-ce", Norm.LINF, 1),
    ("apgd-ce", Norm.L1, 1),
    ("adaptive[preset=light]", Norm.LINF, 1),
    ("fab-t", Norm.LINF, 0.25),
    ("square[queries=100]", Norm.LINF, 1.6),
    ("square[queries=100]", Norm.L2, 2),
    ("fd-pgd", Norm.LINF, 1.2),
]
#: What draws from the generator of the device, and what rounds otherwise there.
OTHERWISE = ("pgd", "fd-pgd")


@contextlib.contextmanager
def on_a_gpu(problem: Problem) -> Iterator[Problem]:
    """The same problem on a pretended GPU, its model asked as the matrix does."""
    assert isinstance(problem.model, CountedModel)
    model = CountedModel(problem.model.module, problem.classes, None, GPU)
    there = dataclasses.replace(
        problem, model=model, inputs=problem.inputs.to(GPU), labels=problem.labels.to(GPU),
        surrogates={}, source=None,
    )  # fmt: skip
    with model.unhurried():
        yield there


@pytest.mark.whole
@pytest.mark.parametrize(("name", "norm", "most"), WATCHED)
def test_an_attack_seldom_waits_and_finds_the_same(
    name: str, norm: Norm, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step asks the model once or twice.

    The CPU is made to draw the GPU's random numbers, and to ask in its layout, which rounds alike.
    """
    monkeypatch.setattr(Manner, "at_first", classmethod(lambda cls, *_: cls()))
    problem = network_problem(norm, EPSILON[norm], count=4)
    asked = 0

    def count(*_: object) -> None:
        nonlocal asked
        asked += 1

    monkeypatch.setattr(ball, "counted", lambda device: True)
    with plain_torch(seed=7):
        expected = attacks.create(name).run(problem).candidates
    assert isinstance(problem.model, CountedModel)
    with pretended_gpu() as waits, plain_torch("cuda:0", seed=7):
        hook = problem.model.module.register_forward_hook(count)
        with on_a_gpu(problem) as there:
            waits.clear()
            found = attacks.create(name).run(there).candidates
        hook.remove()
        waited = sum(waits.values())
        found = found.cpu()
    assert 0 < waited <= most * asked
    if name not in OTHERWISE:
        assert torch.equal(found, expected)


def ask(model: CountedModel, x: torch.Tensor, *, unhurried: bool, fails: bool = False) -> None:
    """Ask more often than it takes to notice, or raise after the first time."""
    with model.unhurried() if unhurried else contextlib.nullcontext():
        for _ in range(2 * TOGETHER):
            model(x)
            if fails:
                raise ValueError("what NaN led to")


@pytest.mark.parametrize(
    ("unhurried", "fails", "calls"), [(False, False, 1), (True, False, TOGETHER), (True, True, 1)]
)
def test_answers_that_are_not_finite_are_noticed_at_last(
    unhurried: bool, fails: bool, calls: int
) -> None:
    """Some calls later, whatever the attack made of them; at once where nothing else is asked."""

    def answer(x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), 4), torch.nan, device=x.device)

    with pretended_gpu():
        model = CountedModel(Function(answer), 4, None, GPU)
        with pytest.raises(NonFiniteLogitsError, match=f"of {6 * calls} finite inputs"):
            ask(model, torch.rand(6, *SHAPE).to(GPU), unhurried=unhurried, fails=fails)
        assert model.forwards == 6 * calls


def test_counters_are_splitmix64() -> None:
    """Its published outputs for the seed 1234567 (Vigna's reference code)."""
    drawn = Counters([1234567], torch.device("cpu")).bits(torch.tensor([0]), 3)[0]
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [value % 2**64 for value in drawn.tolist()] == expected


def test_what_a_row_draws_depends_on_no_other() -> None:
    """Alone, beside others, in another order, or twice in one batch: the same stream."""
    alone, together = (Counters([5, 6, 7], torch.device("cpu")) for _ in "ab")
    expected = torch.cat([alone.uniform(torch.tensor([1]), 4) for _ in range(3)])
    first = together.uniform(torch.tensor([2, 1, 0, 1]), 4)
    second = together.uniform(torch.tensor([1, 2]), 4)
    assert torch.equal(torch.stack([first[1], first[3], second[0]]), expected)


def test_counters_are_uniform_and_normal() -> None:
    """By Kolmogorov and Smirnov's test of 20,000 numbers of two rows each, not correlated."""
    counters, rows = Counters([1, 2], torch.device("cpu")), torch.tensor([0, 1])
    uniform, normal = counters.uniform(rows, 20_000), counters.normal(rows, 20_001)
    assert normal.shape == (2, 20_001)
    assert float(uniform.min()) >= 0
    assert float(uniform.max()) < 1
    for drawn, law in ((uniform, "uniform"), (normal, "norm")):
        for row in drawn:
            assert stats.kstest(row.double().numpy(), law).pvalue > 0.001
        assert abs(float(torch.corrcoef(drawn)[0, 1])) < 0.03


@pytest.mark.parametrize("pairs", [3, 20, 36])
def test_orthogonal_draws_of_many_at_once(pairs: int) -> None:
    """The same as by QR but for signs, square matrices included."""
    rows = torch.randn(50, pairs, 36, generator=torch.Generator().manual_seed(pairs))
    found, expected = _many_bases(rows), _bases(rows)
    signs = (found * expected).sum(dim=2, keepdim=True).sign()
    gram = found.double() @ found.double().transpose(1, 2)
    assert float((gram - torch.eye(pairs)).abs().max()) < 1e-6
    torch.testing.assert_close(found, signs * expected, rtol=0, atol=2e-3 if pairs == 36 else 1e-5)


@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.parametrize("repeated", [True, False])
def test_the_lowest_of_each_row_is_the_first_of_equal_ones(device: str, repeated: bool) -> None:
    """Of those that count, as one finds by going through them; rows without any keep what they had.

    Rows that are there once, and in order, are found in a shorter way.
    """
    generator = torch.Generator().manual_seed(3)
    rows = torch.randint(20, (60,), generator=generator) if repeated else torch.arange(0, 20, 2)
    values = torch.randint(4, rows.shape, generator=generator).double()
    among = torch.rand(rows.shape, generator=generator) < 0.7
    expected = [-1] * 20
    for place, row in enumerate(rows.tolist()):
        held = expected[row]
        if among[place] and (held < 0 or values[place] < values[held]):
            expected[row] = place
    with pretended_gpu():
        there = rows.to(device), values.to(device), among.to(device)
        into = torch.full((20,), -1, device=device)
        put(into, *first_lowest(*there, 20))
        assert into.tolist() == expected
    assert -1 in expected
