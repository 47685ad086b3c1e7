"""Surrogates and transfer: kinder gradients of the committed k-WTA models, and twins."""

import dataclasses

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bench.api import Problem
from bench.data import open_dataset
from bench.data.base import subset
from bench.defenses import checkpoints
from bench.errors import AttackError, UsageError
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.registry import defenses as registered
from bench.threat import Norm
from tests.attacks.worlds import broken, linear_problem, pose, solve

FOLDER = next(iter(checkpoints.__path__))


def wrapped(module: nn.Module) -> CountedModel:
    """The module as the matrix wraps it."""
    return CountedModel(module, 10, None, "cpu")


def committed(name: str, count: int = 20, epsilon: float = 0.1) -> Problem:
    """A committed model on the first test digits that it gets right, with all that it declares."""
    examples = subset(open_dataset("digits").load("test"), count)
    defense = registered.create(name)
    shape, classes = examples.shape, examples.classes
    weights = load_file(f"{FOLDER}/{name}-cnn-ab3b2dfc.safetensors")
    model = wrapped(defense.build(network="cnn", shape=shape, classes=classes))
    kinder = defense.surrogates(network="cnn", shape=shape, classes=classes)
    surrogates = {key: wrapped(module) for key, module in kinder.items()}
    for module in (model, *surrogates.values()):
        module.module.load_state_dict(weights)
    with torch.no_grad():
        right = model(examples.inputs).argmax(dim=1) == examples.labels
    problem = pose(model.module, examples.inputs[right], examples.labels[right], classes=10)
    return dataclasses.replace(problem, epsilon=epsilon, surrogates=dict(surrogates), source=None)


@pytest.mark.parametrize("name", ["kwta", "kwta-at"])
def test_a_surrogate_answers_as_the_model_and_has_another_gradient(name: str) -> None:
    """Bit for bit, with and without a gradient."""
    problem = committed(name)
    assert list(problem.surrogates) == ["smooth"]
    x = problem.inputs.clone().requires_grad_()
    own = problem.model(x)
    (gradient,) = torch.autograd.grad(own.sum(), x)
    for module in problem.surrogates.values():
        logits = module(x)
        assert logits.equal(own)
        assert module(problem.inputs).equal(own.detach())
        (kinder,) = torch.autograd.grad(logits.sum(), x)
        assert not kinder.equal(gradient)


@pytest.mark.parametrize("name", ["kwta", "kwta-at"])
def test_kinder_gradients_break_what_own_gradients_do_not(name: str) -> None:
    """On the committed models, more than PGD and than restarted PGD on the margin."""
    problem = committed(name)
    found = int(broken(problem, solve("surrogate", problem)).sum())
    assert found > int(broken(problem, solve("margin-pgd", problem)).sum())
    assert found > int(broken(problem, solve("pgd", problem)).sum())


@pytest.mark.whole
@pytest.mark.parametrize("preset", ["light", "full"])
def test_it_reaches_the_exact_robust_accuracy_of_a_linear_model(preset: str) -> None:
    """Its attacks are strong ones where nothing is hidden."""
    problem, exact = linear_problem(10, Norm.LINF, 10)
    found = broken(problem, solve(f"surrogate[preset={preset}]", problem))
    assert found.tolist() == (exact <= (problem.epsilon or 0)).tolist()


def test_broken_examples_are_left_alone() -> None:
    """With everything broken by the first attack the others never run."""
    problem, exact = linear_problem(4, Norm.LINF, 10)
    assert isinstance(problem.model, CountedModel)
    solve("surrogate", problem)
    some = problem.model.forwards
    problem.model.reset_counts()
    solve("surrogate", dataclasses.replace(problem, epsilon=1.1 * float(exact.max())))
    assert problem.model.forwards < some / 2


@pytest.mark.parametrize("norm", [Norm.LINF, Norm.L2])
def test_transfer_from_the_same_model_is_a_white_box_attack(norm: Norm) -> None:
    """With itself as the source it reaches the exact robust accuracy."""
    problem, exact = linear_problem(2, norm, 20)
    found = broken(problem, solve("transfer", problem))
    assert found.tolist() == (exact <= (problem.epsilon or 0)).tolist()


def test_transfer_queries_the_target_three_times_and_never_its_gradient() -> None:
    """The passes are those of the source."""
    problem, _ = linear_problem(4, Norm.LINF, 5)
    assert isinstance(problem.model, CountedModel)
    source = CountedModel(problem.model.module, 4, None, "cpu")
    problem.model.reset_counts()
    solve("transfer", dataclasses.replace(problem, source=source))
    assert (problem.model.forwards, problem.model.backwards) == (3 * 5, 0)
    assert source.backwards > 0


def test_what_is_missing_is_named() -> None:
    """An attack without what it needs says so."""
    problem = dataclasses.replace(linear_problem(4, Norm.LINF, 2)[0], surrogates={}, source=None)
    with pytest.raises(AttackError, match="declares no surrogates"):
        solve("surrogate", problem)
    with pytest.raises(AttackError, match="no model of the source 'relu' was given"):
        solve("transfer[source=relu]", problem)
    with pytest.raises(UsageError, match="preset has to be one of light, full"):
        attacks.create("surrogate[preset=fast]")
