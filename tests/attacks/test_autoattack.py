"""AutoAttack's rows and cascade; and the traps of pyautoattack, each where it snaps."""

import logging
import sys
from dataclasses import replace

import pyautoattack
import pytest
import torch
from torch import Tensor, nn

from bench.api import Flag
from bench.attacks.blocks.spending import QUERIES
from bench.errors import UsageError
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.threat import Norm
from tests.attacks.worlds import (
    Function,
    broken,
    linear_problem,
    network_problem,
    pose,
    solve,
    unbreakable_problem,
)

SHAPE = (1, 8, 8)


LIBRARY = "autoattack[engine=pyautoattack]"


@pytest.fixture
def few_queries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cascade's Square with 50 queries, where the number does not matter, by both engines."""
    monkeypatch.setattr("bench.attacks.autoattack.QUERIES", 50)
    original = pyautoattack.AutoAttack.run_standard_evaluation

    def hurried(self: pyautoattack.AutoAttack, *args: object, **kwargs: object) -> object:
        assert self.square.n_queries == QUERIES
        self.square.n_queries = 50
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pyautoattack.AutoAttack, "run_standard_evaluation", hurried)


@pytest.mark.parametrize(
    ("name", "classes", "runs"),
    [
        ("apgd-dlr", 2, False),
        ("apgd-dlr", 3, True),
        ("apgd-t", 2, False),
        ("apgd-t", 3, False),
        ("apgd-t", 4, True),
        ("fab-t", 2, True),
        ("apgd-ce", 2, True),
        ("autoattack", 2, True),
    ],
)
def test_losses_that_need_more_classes_say_so(name: str, classes: int, runs: bool) -> None:
    """An attack that cannot run says why; one that can does, with fewer than ten classes."""
    why = attacks.create(name).why_not(norm=Norm.LINF, shape=SHAPE, classes=classes)
    assert (why is None) == runs
    assert runs or "classes" in str(why)


@pytest.mark.usefixtures("few_queries")
@pytest.mark.parametrize(
    ("classes", "flags"),
    [
        (2, ("apgd-t is left out: its loss needs at least 4 classes (there are 2)",)),
        (3, ("apgd-dlr runs instead of apgd-t with 3 classes",)),
        (5, ()),
    ],
)
@pytest.mark.parametrize("engine", ["winnow", "pyautoattack"])
def test_cascade_runs_with_few_classes(classes: int, flags: tuple[str, ...], engine: str) -> None:
    """Flags name the engine and what cannot run; the rest still finds every breakable example."""
    problem, exact = linear_problem(classes, Norm.LINF, 12)
    assert problem.epsilon is not None
    proposal = solve(f"autoattack[engine={engine}]", problem)
    said = Flag("autoattack-engine", f"AutoAttack by the engine {engine}")
    assert proposal.flags == (said, *flags)
    assert broken(problem, proposal).tolist() == (exact <= problem.epsilon).tolist()


def test_square_needs_five_pixels_outside_linf() -> None:
    """Its grid of five by five patches divides by zero on smaller images."""
    square = attacks.create("square")
    assert square.why_not(norm=Norm.LINF, shape=(1, 4, 4), classes=10) is None
    assert "5 x 5" in str(square.why_not(norm=Norm.L2, shape=(1, 4, 4), classes=10))
    assert square.why_not(norm=Norm.L2, shape=(1, 5, 5), classes=10) is None


def test_what_is_not_broken_is_returned_as_it_was() -> None:
    """A candidate is the input itself or an adversarial example."""
    problem, _ = linear_problem(4, Norm.LINF, 12)
    proposal = solve("apgd-ce", problem)
    found = broken(problem, proposal)
    assert 0 < found.sum() < 12
    assert proposal.candidates[~found].equal(problem.inputs[~found])


def test_result_depends_on_the_seed_of_the_problem_and_not_on_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a seed AutoAttack takes the clock's."""
    problem = network_problem(Norm.LINF, 0.3)
    first = solve("apgd-ce", problem)
    monkeypatch.setattr("time.time", lambda: 12345.0)
    assert solve("apgd-ce", problem, seed=99).candidates.equal(first.candidates)
    other = solve("apgd-ce", replace(problem, seed=8))
    assert not other.candidates.equal(first.candidates)


def test_global_generator_goes_on_as_if_nothing_had_happened() -> None:
    """AutoAttack reseeds torch for the whole process."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    solve(LIBRARY, network_problem(Norm.LINF, 0.3))
    assert torch.rand(2).equal(expected)


@pytest.mark.usefixtures("few_queries")
@pytest.mark.parametrize("name", ["apgd-ce", LIBRARY])
def test_trace_function_and_logger_are_left_as_they_were(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its check for dynamic defenses ends with `sys.settrace(None)`, which stops coverage."""
    logger = logging.getLogger("auto-attack")
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logger, "level", logging.INFO)
    before = logger.level, logger.propagate, list(logger.handlers)
    outside = sys.gettrace()

    def trace(*_: object) -> None:
        return None

    problem = network_problem(Norm.LINF, 0.1)
    attack = attacks.create(name)
    sys.settrace(trace)
    try:
        attack.run(problem)  # without the isolation that the matrix adds
        after = sys.gettrace()
    finally:
        sys.settrace(outside)
    assert after is trace
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def dynamic(x: Tensor) -> Tensor:
    """Computes a gradient inside its forward pass."""
    with torch.enable_grad():
        inner = x.detach().requires_grad_()
        torch.autograd.grad(inner.square().sum(), inner)
    return 5 * x.flatten(1)[:, :4]


def noisy(x: Tensor) -> Tensor:
    """Adds noise to its logits."""
    return 5 * x.flatten(1)[:, :4] + torch.randn(len(x), 4)


def flat(x: Tensor) -> Tensor:
    """Constant logits, with a zero gradient."""
    return 0 * x.flatten(1)[:, :4] + torch.tensor([3.0, 0.0, 1.0, 2.0])


def probabilities(x: Tensor) -> Tensor:
    """A softmax."""
    return x.flatten(1)[:, :4].softmax(dim=1)


@pytest.mark.usefixtures("few_queries")
@pytest.mark.parametrize(
    ("function", "flag"),
    [
        (dynamic, "autoattack-dynamic"),
        (noisy, "autoattack-randomised"),
        (flat, "autoattack-zero-gradient"),
        (probabilities, "autoattack-probabilities"),
    ],
)
def test_warnings_become_flags_and_do_not_stick(function: object, flag: str) -> None:
    """Each warning is one flag; the next defense starts with a clean slate."""
    inputs = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    inputs[:, 0, 0, 0] = 1.0
    labels = torch.zeros(4).long()
    module = Function(function)  # type: ignore[arg-type]
    proposal = solve("apgd-dlr", pose(module, inputs, labels, epsilon=0.01, classes=4))
    said = dict(map(Flag.of, proposal.flags))
    assert said[flag].startswith("AutoAttack: ")
    assert len(set(proposal.flags)) == len(proposal.flags)
    library = solve(LIBRARY, pose(module, inputs, labels, epsilon=0.01, classes=4))
    assert flag in dict(map(Flag.of, library.flags))
    honest, _ = linear_problem(4, Norm.LINF, 4)
    assert solve("apgd-dlr", honest).flags == ()


@pytest.mark.usefixtures("few_queries")
def test_layout_and_types_that_it_chokes_on_are_mended() -> None:
    """Inputs in channels_last order and int32 labels raise in AutoAttack."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(5, 3, 6, 6, generator=generator)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    labels = module(inputs).argmax(dim=1)
    problem = pose(module, inputs, labels, epsilon=0.3, classes=4)
    expected = solve(LIBRARY, problem)
    odd = replace(
        problem,
        inputs=inputs.to(memory_format=torch.channels_last),
        labels=labels.int(),
    )
    assert solve(LIBRARY, odd).candidates.equal(expected.candidates)


def test_square_has_a_budget_of_its_own() -> None:
    """Queries and restarts bound its forwards, and its defaults are AutoAttack's."""
    problem = unbreakable_problem(Norm.LINF)
    assert isinstance(problem.model, CountedModel)
    taken = {}
    for name in ("square[queries=30]", "square[queries=30,restarts=3]"):
        problem.model.reset_counts()
        solve(name, problem)
        attack = attacks.create(name)
        cost = attack.cost(norm=Norm.LINF, shape=SHAPE, classes=problem.classes)
        taken[name] = problem.model.forwards / len(problem.inputs)
        assert 0.7 * cost.forwards <= taken[name] <= cost.forwards
    assert taken["square[queries=30,restarts=3]"] > 2 * taken["square[queries=30]"]
    assert attacks.create("square").parameters == {"queries": 5_000, "restarts": 1}
    with pytest.raises(UsageError, match="queries has to be greater than 0"):
        attacks.create("square[queries=0]")


@pytest.mark.parametrize("norm", list(Norm))
def test_one_search_of_fab_breaks_what_autoattack_breaks_at_each_epsilon(norm: Norm) -> None:
    """The library, called at epsilons between the norms that were found, agrees on each example."""
    problem = network_problem(norm, None, count=24)
    proposal = solve("fab-t", problem)
    assert broken(problem, proposal).all()
    found = norm.distance(problem.inputs, proposal.candidates)
    known = found.sort().values
    for place in (5, 11, 17):
        epsilon = float(known[place : place + 2].mean())
        assert (found - epsilon).abs().min() > 1e-4 * epsilon  # else rounding decides
        adversary = pyautoattack.AutoAttack(
            problem.model, norm=norm.value, eps=epsilon, seed=0, device="cpu"
        )
        adversary.attacks_to_run = ["fab-t"]
        adversary.fab.n_target_classes = problem.classes - 1
        _, predicted = adversary.run_standard_evaluation(problem.inputs, problem.labels)
        assert (predicted != problem.labels).tolist() == (found <= epsilon).tolist()
