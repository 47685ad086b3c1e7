"""Recipes: losses, settings, and where their randomness comes from."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Schedule
from bench.errors import UsageError
from defenses.recipes import Natural, PGDAdversarialTraining

FAMILIES = ["digits", "mnist", "fashion-mnist", "svhn", "cifar10", "cifar100"]


class Linear(nn.Module):
    """A linear model that notes the mode of every forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)
        self.modes: list[bool] = []
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, 3)."""
        self.modes.append(self.training)
        logits: Tensor = self.linear(x.flatten(1))
        return logits


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Eight inputs (3, 2, 2), some at the border of the box, and labels."""
    inputs = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    inputs[0], inputs[1] = 0.0, 1.0
    return inputs, torch.arange(8) % 3


def generator() -> torch.Generator:
    """A seeded generator on the CPU."""
    return torch.Generator().manual_seed(7)


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
        ("cifar10", 0.031, 0.007, Schedule(80, 256, 0.1, (50,), augment=True)),
        ("svhn", 0.047, 0.01, Schedule(80, 256, 0.1, (50,))),
        ("mnist", 0.3, 0.01, Schedule(20, 200, 0.01)),
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


def test_perturbed_inputs_stay_in_ball_and_box(batch: tuple[Tensor, Tensor]) -> None:
    """Within epsilon of the input and in [0, 1], which the paper's code did not hold to."""
    inputs, labels = batch
    recipe = PGDAdversarialTraining("digits", epsilon=0.1, step=0.5)

    moved = recipe.perturb(Linear(), inputs, labels, generator())

    assert (moved - inputs).abs().max() <= 0.1 + 1e-6
    assert (moved - inputs).abs().max() > 0.09
    assert moved.min() >= 0
    assert moved.max() <= 1


def test_attack_finds_the_corner_on_a_two_class_linear_model(
    batch: tuple[Tensor, Tensor],
) -> None:
    """The strongest perturbation of a two-class linear model is known: the sign of the weights."""
    inputs, labels = batch[0], batch[1] % 2
    linear = nn.Linear(12, 2)
    model = nn.Sequential(nn.Flatten(), linear)
    weight = linear.weight.detach()
    towards = torch.where(labels == 0, 1.0, -1.0)[:, None] * (weight[1] - weight[0]).sign()
    expected = (inputs + 0.1 * towards.view_as(inputs)).clamp(0, 1)

    moved = PGDAdversarialTraining("digits", epsilon=0.1, step=0.03).perturb(
        model, inputs, labels, generator()
    )

    torch.testing.assert_close(moved, expected)


def test_attack_sees_eval_mode_and_leaves_training_mode(batch: tuple[Tensor, Tensor]) -> None:
    """Ten passes in eval mode, then the loss in training mode; parameters gain no gradient."""
    model = Linear().train()

    loss = PGDAdversarialTraining("digits").loss(model, *batch, generator())

    assert model.modes == [False] * 10 + [True]
    assert model.training
    assert model.linear.weight.grad is None
    loss.backward()  # type: ignore[no-untyped-call]
    assert model.linear.weight.grad is not None


def test_training_mode_comes_back_when_the_model_raises(batch: tuple[Tensor, Tensor]) -> None:
    """An error inside the attack does not leave the model in eval mode."""
    model = Linear().train()

    with pytest.raises(RuntimeError):
        PGDAdversarialTraining("digits").loss(model, batch[0][:, :2], batch[1], generator())

    assert model.training


def test_randomness_comes_from_the_generator_alone(batch: tuple[Tensor, Tensor]) -> None:
    """Same generator, same perturbation, whatever the global state, which is left as it was."""
    recipe, model = PGDAdversarialTraining("digits", steps=1), Linear()
    torch.manual_seed(1)
    first = recipe.perturb(model, *batch, generator())
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = recipe.perturb(model, *batch, generator())
    other = recipe.perturb(model, *batch, torch.Generator().manual_seed(8))

    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(state, torch.get_rng_state())
