"""Recipes: losses, settings, and where their randomness comes from."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Schedule
from bench.defenses.recipes import (
    TRADES,
    FastAdversarialTraining,
    FreeAdversarialTraining,
    Natural,
    PGDAdversarialTraining,
)
from bench.defenses.recipes.pgd import LinfRecipe
from bench.errors import UsageError
from tests.defenses.linear import Linear, TwoClasses, border_batch, generator

FAMILIES = ["digits", "mnist", "fashion-mnist", "svhn", "cifar10", "cifar100"]


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Eight inputs (3, 2, 2), some at the border of the box, and labels of three classes."""
    return border_batch()


def pgd(model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """What PGD adversarial training trains on."""
    recipe = PGDAdversarialTraining("digits", epsilon=0.1, step=0.5)
    return recipe.perturb(model, inputs, labels, generator)


def trades(model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """What TRADES compares the inputs with."""
    return TRADES("digits", epsilon=0.1, step=0.04).perturb(model, inputs, generator)


def validation(model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """What robust accuracy on validation examples is measured on, whatever the recipe."""
    recipe = FastAdversarialTraining("digits", epsilon=0.1)
    return recipe.attack(model, inputs, labels, generator)


Perturb = Callable[[nn.Module, Tensor, Tensor, Generator], Tensor]
PERTURBATIONS = pytest.mark.parametrize("perturb", [pgd, trades, validation])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_settings_that_json_can_hold(family: str) -> None:
    """Each data set has a schedule, and only CIFAR is augmented."""
    natural, adversarial = Natural(family).describe(), PGDAdversarialTraining(family).describe()

    assert (natural["recipe"], adversarial["recipe"]) == ("natural", "pgd-at")
    assert natural["epochs"] > 0
    assert natural["augment"] == adversarial["augment"] == family.startswith("cifar")
    assert 0 < adversarial["step"] <= adversarial["epsilon"]


@pytest.mark.parametrize(
    ("family", "epsilon", "step", "schedule"),
    [
        ("cifar10", 0.031, 0.007, Schedule(80, 256, 0.1, (50,), augment=True, validation=1000)),
        ("svhn", 0.047, 0.01, Schedule(80, 256, 0.1, (50,), validation=1000)),
        ("mnist", 0.3, 0.01, Schedule(20, 200, 0.01, validation=1000)),
    ],
)
def test_settings_are_the_papers(
    family: str, epsilon: float, step: float, schedule: Schedule
) -> None:
    """Epsilon, step, steps and schedule of the k-WTA paper's code."""
    recipe = PGDAdversarialTraining(family)

    assert (recipe.epsilon, recipe.step, recipe.steps) == (epsilon, step, 10)
    assert recipe.schedule == schedule
    assert (schedule.factor, schedule.momentum, schedule.weight_decay) == (0.1, 0.9, 0.0)


def test_unknown_family_is_refused() -> None:
    """The error names the families there are."""
    with pytest.raises(UsageError, match="family 'imagenet'; known: cifar10, cifar100, digits"):
        Natural("imagenet")


def test_natural_loss_is_cross_entropy(batch: tuple[Tensor, Tensor]) -> None:
    """The mean over the batch."""
    inputs, labels = batch
    model = Linear()

    loss = Natural("digits").loss(model, inputs, labels, generator())

    assert loss.item() == pytest.approx(cross_entropy(model(inputs), labels).item())


@PERTURBATIONS
def test_perturbed_inputs_stay_in_ball_and_box(
    batch: tuple[Tensor, Tensor], perturb: Perturb
) -> None:
    """Within epsilon of the input and in [0, 1], which the paper's code did not hold to."""
    moved = perturb(Linear(), *batch, generator())

    assert (moved - batch[0]).abs().max() <= 0.1 + 1e-6
    assert (moved - batch[0]).abs().max() > 0.09
    assert moved.min() >= 0
    assert moved.max() <= 1


@PERTURBATIONS
def test_attack_sees_eval_mode_and_leaves_the_model_as_it_was(
    batch: tuple[Tensor, Tensor], perturb: Perturb
) -> None:
    """Every pass in eval mode; then in training mode again, and no gradient in its parameters."""
    model = Linear().train()

    perturb(model, *batch, generator())

    assert set(model.modes) == {False}
    assert model.training
    assert [parameter.grad for parameter in model.parameters()] == [None, None]


@PERTURBATIONS
def test_training_mode_comes_back_when_the_model_raises(
    batch: tuple[Tensor, Tensor], perturb: Perturb
) -> None:
    """An error inside the attack does not leave the model in eval mode."""
    model = Linear().train()

    with pytest.raises(RuntimeError):
        perturb(model, batch[0][:, :2], batch[1], generator())

    assert model.training


@PERTURBATIONS
def test_randomness_comes_from_the_generator_alone(
    batch: tuple[Tensor, Tensor], perturb: Perturb
) -> None:
    """Same generator, same perturbation, whatever the global state, which is left as it was."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))
    first, state = perturb(model, *batch, one := generator()), one.get_state()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = perturb(model, *batch, generator())

    assert torch.equal(first, second)
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.equal(state, generator().get_state())


@pytest.mark.parametrize(
    "recipe",
    [
        PGDAdversarialTraining("digits", epsilon=0.1, step=0.001),
        TRADES("digits", epsilon=0.1, step=0.001),
        FreeAdversarialTraining("digits", epsilon=0.1),
        FastAdversarialTraining("digits", epsilon=0.1),
    ],
    ids=lambda recipe: recipe.name,
)
def test_validation_attack_finds_the_corner_whatever_the_recipe(
    batch: tuple[Tensor, Tensor], recipe: LinfRecipe
) -> None:
    """Ten steps of a quarter of epsilon cross the ball: the strongest perturbation is reached."""
    inputs, labels = batch[0], batch[1] % 2
    model = TwoClasses()
    expected = (inputs + 0.1 * model.uphill(inputs, labels)).clamp(0, 1)

    torch.testing.assert_close(recipe.attack(model, inputs, labels, generator()), expected)


def test_natural_training_is_validated_on_the_inputs(batch: tuple[Tensor, Tensor]) -> None:
    """The very same, so that no robust accuracy is claimed."""
    assert Natural("digits").attack(Linear(), *batch, generator()) is batch[0]


def test_pgd_finds_the_corner_on_a_two_class_linear_model(batch: tuple[Tensor, Tensor]) -> None:
    """The strongest perturbation of a two-class linear model is known: the sign of the weights."""
    inputs, labels = batch[0], batch[1] % 2
    model = TwoClasses()
    recipe = PGDAdversarialTraining("digits", epsilon=0.1, step=0.03)
    expected = (inputs + 0.1 * model.uphill(inputs, labels)).clamp(0, 1)

    torch.testing.assert_close(recipe.perturb(model, inputs, labels, generator()), expected)


def test_pgd_trains_in_training_mode(batch: tuple[Tensor, Tensor]) -> None:
    """Ten passes in eval mode, then the loss in training mode, from which gradients flow."""
    model = Linear().train()

    loss = PGDAdversarialTraining("digits").loss(model, *batch, generator())
    loss.backward()  # type: ignore[no-untyped-call]

    assert model.modes == [False] * 10 + [True]
    assert model.linear.weight.grad is not None


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (PGDAdversarialTraining, {"epsilon": 0.0}, r"pgd-at: epsilon has to be positive \(got 0"),
        (PGDAdversarialTraining, {"steps": 0}, "steps has to be positive"),
        (TRADES, {"step": -0.1}, "trades: step has to be positive"),
        (TRADES, {"beta": 0.0}, r"trades: beta has to be positive \(got 0"),
        (FreeAdversarialTraining, {"replays": 0}, "free-at: replays has to be at least 1"),
        (FastAdversarialTraining, {"epsilon": float("nan")}, "fast-at: epsilon has to be positive"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(
    recipe: type[LinfRecipe], settings: dict[str, Any], message: str
) -> None:
    """The error names recipe, setting, and what was got."""
    with pytest.raises(UsageError, match=message):
        recipe("digits", **settings)
