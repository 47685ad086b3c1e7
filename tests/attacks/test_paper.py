"""The k-WTA paper's attacks: its settings, and each against a truth computed another way."""

import dataclasses
import itertools

import foolbox
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.api import Problem
from bench.models.ambient import plain_torch
from bench.registry import attacks, create_attacks, suite_epsilons, suites
from bench.threat import TOLERANCE, Norm
from tests.attacks.worlds import (
    Function,
    broken,
    distances,
    linear_problem,
    network_problem,
    pose,
    solve,
)

MIM = "mi-fgsm[accumulate=gradients,rel_stepsize=0.2258]"


def listened(problem: Problem) -> tuple[Problem, list[Tensor]]:
    """The same problem, and a list that fills with the inputs that its model is asked about."""
    asked: list[Tensor] = []
    module = problem.model.module
    assert isinstance(module, nn.Module)

    def listening(x: Tensor) -> Tensor:
        asked.append(x.detach().clone())
        logits: Tensor = module(x)
        return logits

    posed = pose(
        Function(listening),
        problem.inputs,
        problem.labels,
        norm=problem.norm,
        epsilon=problem.epsilon,
        classes=problem.classes,
    )
    return dataclasses.replace(posed, source=problem.model), asked


@pytest.mark.parametrize("norm", list(Norm))
def test_the_suite_holds_the_papers_rows(norm: Norm) -> None:
    """Transfer does not search in L1."""
    rows = [attack.name for attack in create_attacks("paper", norm)]
    transfer = ["transfer[source=relu]", "transfer[source=relu-at]"]
    assert [row for row in rows if row not in transfer] == [
        "pgd[steps=20]",
        MIM,
        "deepfool[steps=20]",
        "cw[preset=published]",
        "cw[preset=converged]",
        "boundary",
        "single-pixel",
        "local-search",
    ]
    assert [row for row in rows if row in transfer] == ([] if norm is Norm.L1 else transfer)
    assert rows == suites["paper"].members(norm)  # written as they are canonically


@pytest.mark.parametrize(
    ("family", "epsilon"),
    [
        ("cifar10", "0.031"),
        ("cifar100", "0.031"),
        ("svhn", "0.047"),
        ("mnist", "0.3"),
        ("fashion-mnist", "0.3"),
        ("digits", "0.1"),
    ],
)
def test_the_suite_has_the_papers_epsilons(family: str, epsilon: str) -> None:
    """In Linf, the paper's only norm."""
    assert suite_epsilons("paper", family, Norm.LINF) == (epsilon,)
    assert suite_epsilons("paper", family, Norm.L2) == ()


@pytest.mark.usefixtures("nobody_leaves")
@pytest.mark.parametrize(
    ("name", "steps", "size"), [("pgd[steps=20]", 20, 0.003), (MIM, 10, 0.007)]
)
def test_steps_are_the_papers_at_its_epsilon(name: str, steps: int, size: float) -> None:
    """The largest move between two iterates at 0.031 is the published step, to three digits."""
    problem, asked = listened(network_problem(Norm.LINF, 0.031))
    solve(name, problem)
    assert len(asked) == steps + 1
    moves = [float((after - x).abs().max()) for x, after in itertools.pairwise(asked)]
    assert max(moves) == pytest.approx(size, rel=0.04)
    first = asked[0] - problem.inputs
    assert bool(first.any()) == name.startswith("pgd")  # MIM starts at the input, PGD at random


@pytest.mark.usefixtures("nobody_leaves")
def test_momentum_sums_up_gradients_of_l1_size_1() -> None:
    """Each iterate is that of Dong et al. written in NumPy; summed signs lead elsewhere."""
    posed, _ = linear_problem(4, Norm.LINF, 12)
    problem, asked = listened(posed)
    solve(MIM, problem)
    module = posed.model.module
    assert isinstance(module, nn.Sequential)
    linear = module[1]
    assert isinstance(linear, nn.Linear)
    weights, bias = (p.detach().double().numpy() for p in (linear.weight, linear.bias))
    inputs = problem.inputs.flatten(1).double().numpy()
    epsilon = problem.epsilon or 0
    paths = []
    for signs in (False, True):
        x, momentum, path = inputs, np.zeros_like(inputs), []
        for _ in range(10):
            path.append(x)
            logits = x @ weights.T + bias
            chances = np.exp(logits - logits.max(axis=1, keepdims=True))
            chances /= chances.sum(axis=1, keepdims=True)
            gradient = (chances - np.eye(4)[problem.labels.numpy()]) @ weights
            scaled = gradient / np.abs(gradient).sum(axis=1, keepdims=True)
            momentum = momentum + (np.sign(gradient) if signs else scaled)
            x = x + 0.2258 * epsilon * np.sign(momentum)
            x = np.clip(x, inputs - epsilon, inputs + epsilon).clip(0, 1)
        paths.append([*path, x])
    found = [x.flatten(1).numpy() for x in asked]
    np.testing.assert_allclose(np.stack(found), np.stack(paths[0]), atol=2e-6)
    assert np.abs(np.stack(paths[0]) - np.stack(paths[1])).max() > 0.1 * epsilon


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_deepfool_is_exact_on_a_linear_model(norm: Norm) -> None:
    """One linearisation is the model: the exact distance and DeepFool's overshoot of 2 %."""
    problem, exact = linear_problem(4, norm, 30)
    candidates = solve("deepfool[steps=20]", problem).candidates
    found = distances(norm, problem.inputs, candidates)
    np.testing.assert_allclose(found, 1.02 * (exact + 1e-4), rtol=1e-3)


def carlini_wagner(preset: str, problem: Problem, **settings: float) -> np.ndarray:
    """L2 distances that the attack finds, with some settings replaced; infinite where none."""
    attack = attacks.create(f"cw[preset={preset}]")
    assert settings.keys() <= vars(attack).keys()
    vars(attack).update(settings)
    proposal = attack.run(problem)
    sizes = distances(Norm.L2, problem.inputs, proposal.candidates)
    return np.where(broken(problem, proposal), sizes, np.inf)


def test_carlini_wagner_as_published_is_far_from_the_exact_distance() -> None:
    """Five times ten steps: beyond it by over a twentieth for most examples of a linear model."""
    problem, exact = linear_problem(2, Norm.L2, 20)
    found = carlini_wagner("published", dataclasses.replace(problem, epsilon=None))
    assert np.median(found / exact) > 1.05


def test_carlini_wagner_converges_from_black_and_white_pixels() -> None:
    """The exact distance, and the same in twice the steps; as published it finds nothing.

    The model is wrong where the mean grey is above 0.2. One weight is enough of the nine: the
    penalty is exact from 14.4 up, where its slope outweighs that of the squared distance.
    """

    def bright(x: Tensor) -> Tensor:
        return torch.stack([torch.full((len(x),), 0.2), x.flatten(1).mean(dim=1)], dim=1)

    inputs = torch.zeros(2, 1, 6, 6)
    inputs[1] = 0.1
    problem = pose(Function(bright), inputs, torch.zeros(2).long(), epsilon=None, classes=2)
    assert np.isinf(carlini_wagner("published", problem)).all()
    converged, doubled = (
        carlini_wagner("converged", problem, weights=1, first=20.0, steps=steps)
        for steps in (attacks.create("cw[preset=converged]").steps * times for times in (1, 2))  # type: ignore[attr-defined]
    )
    np.testing.assert_allclose(converged, [1.2, 0.6], rtol=1e-3)
    np.testing.assert_allclose(doubled, converged, rtol=1e-3)


def test_carlini_wagner_keeps_its_steps_until_it_converges() -> None:
    """Only `converged` does; the two settings that are not ours are those of their authors."""
    settings = {
        preset: attacks.create(f"cw[preset={preset}]").build(Norm.LINF)  # type: ignore[attr-defined]
        for preset in ("light", "full", "published", "converged")
    }
    assert [p for p, attack in settings.items() if not attack.abort_early] == ["converged"]
    published, full = settings["published"], settings["full"]
    assert (published.binary_search_steps, published.steps) == (5, 10)
    assert (published.stepsize, published.initial_const) == (0.01, 0.01)
    assert vars(full) == vars(foolbox.attacks.L2CarliniWagnerAttack())


@pytest.mark.parametrize(
    "name",
    [
        attack.name.replace("[source=relu-at]", "")
        for attack in create_attacks("paper", Norm.LINF)
        if attack.name not in ("cw[preset=converged]", "transfer[source=relu]")
    ],
)
def test_no_iterate_leaves_the_box(name: str) -> None:
    """Where the paper's PGD did: inputs with black and white pixels, every query looked at.

    Queries of an attack within epsilon stay in the ball as well.
    """
    attack = attacks.create(name)
    if name == "boundary":
        attack.steps = 200  # type: ignore[attr-defined]
    kind = attack.kind
    problem, asked = listened(network_problem(Norm.LINF, 0.15 if kind == "fixed" else None))
    with plain_torch(seed=7):
        attack.run(problem)
    assert asked
    for x in asked:
        assert x.min() >= 0
        assert x.max() <= 1
        if kind == "fixed" and len(x) == len(problem.inputs):
            assert (distances(Norm.LINF, problem.inputs, x) <= 0.15 + TOLERANCE).all()
