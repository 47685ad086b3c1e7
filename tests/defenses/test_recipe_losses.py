"""The losses of TRADES, free and fast adversarial training, written out for linear models."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bench.defenses.recipes import TRADES, FastAdversarialTraining, FreeAdversarialTraining
from tests.defenses.linear import Linear, TwoClasses, border_batch, generator


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    """Eight inputs (3, 2, 2), some at the border of the box, and labels of three classes."""
    return border_batch()


def divergences(model: nn.Module, inputs: Tensor, moved: Tensor) -> Tensor:
    """KL(f(x) ‖ f(x')) of each example, from probabilities in float64."""
    p, q = (model(x).double().softmax(dim=1).detach() for x in (inputs, moved))
    divergence: Tensor = (p * (p / q).log()).sum(dim=1)
    return divergence


def test_trades_loss_is_cross_entropy_and_weighted_divergence(
    batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CE(f(x), y) + beta · KL(f(x) ‖ f(x')), computed by hand for a given x'."""
    inputs, labels = batch
    moved = (inputs + 0.2 * torch.rand(inputs.shape, generator=generator())).clamp(0, 1)
    model, recipe = Linear(), TRADES("digits", beta=2.5)
    monkeypatch.setattr(recipe, "perturb", lambda *_: moved)
    right = model(inputs).double().softmax(dim=1)[range(8), labels]
    expected = -right.log().mean() + 2.5 * divergences(model, inputs, moved).mean()

    loss = recipe.loss(model, inputs, labels, generator())

    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_trades_moves_both_answers(
    batch: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient is that of the loss written out with probabilities: through f(x) and f(x')."""
    inputs, labels = batch
    model, recipe = Linear(), TRADES("digits", beta=2.5)
    monkeypatch.setattr(recipe, "perturb", lambda *_: inputs.flip(3))
    p, q = model(inputs).softmax(dim=1), model(inputs.flip(3)).softmax(dim=1)
    written = -p[range(8), labels].log().mean() + 2.5 * (p * (p / q).log()).sum() / 8

    loss = recipe.loss(model, inputs, labels, generator())

    (expected,) = torch.autograd.grad(written, model.linear.weight)
    (gradient,) = torch.autograd.grad(loss, model.linear.weight)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5)


def test_trades_perturbation_raises_the_divergence(batch: tuple[Tensor, Tensor]) -> None:
    """On every example further than ten random corners of the ball do on average."""
    model, inputs = Linear(), batch[0]
    recipe = TRADES("digits", epsilon=0.1, step=0.04)
    signs = torch.rand(10, *inputs.shape, generator=generator()).round() * 2 - 1
    corners = torch.stack(
        [divergences(model, inputs, (inputs + 0.1 * sign).clamp(0, 1)) for sign in signs]
    )

    found = divergences(model, inputs, recipe.perturb(model, inputs, generator()))

    assert (found > corners.mean(dim=0)).all()
    assert (found > 0).all()


@pytest.mark.parametrize("flips", [(False,) * 4, (True,) * 4, (False, True, False, False)])
def test_free_perturbation_accumulates_steps_of_epsilon(flips: tuple[bool, ...]) -> None:
    """From zero for each batch: the sum of epsilon · sign, clipped to the ball at each step.

    Between the replays the weights may turn around, and the sign of the gradient with them.
    """
    inputs = 0.3 + 0.4 * torch.rand(6, 3, 2, 2, generator=generator())
    labels = torch.arange(6) % 2
    model = TwoClasses().train()
    recipe = FreeAdversarialTraining("digits", epsilon=0.1, replays=4)
    delta, expected = torch.zeros_like(inputs), []

    for _ in range(2):
        delta.zero_()
        for loss, flip in zip(
            recipe.losses(model, inputs, labels, generator()), flips, strict=True
        ):
            expected.append(inputs + delta)
            delta = (delta + 0.1 * model.uphill(inputs, labels)).clamp(-0.1, 0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            if flip:
                model.weight.data.neg_()

    assert len(model.seen) == len(expected) == 8
    for seen, wanted in zip(model.seen, expected, strict=True):
        torch.testing.assert_close(seen, wanted)


def test_free_losses_are_those_of_the_replays(batch: tuple[Tensor, Tensor]) -> None:
    """The cross-entropy of what the model saw, in the box, and the batch is left as it was."""
    inputs, labels = batch[0].clone(), batch[1] % 2
    model = TwoClasses().train()
    losses = []
    for loss in FreeAdversarialTraining("digits", epsilon=0.1).losses(
        model, inputs, labels, generator()
    ):
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())

    assert len(losses) == 8
    assert torch.equal(inputs, batch[0])
    assert not inputs.requires_grad
    for seen, value in zip(model.seen, losses, strict=True):
        assert seen.min() >= 0
        assert seen.max() <= 1
        expected = cross_entropy(seen.flatten(1) @ model.weight.T, labels).item()
        assert value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("family", "replays", "epochs"),
    [("cifar10", 8, 10), ("digits", 8, 5), ("digits", 3, 14), ("mnist", 8, 3), ("mnist", 1, 20)],
)
def test_free_divides_the_epochs_by_the_replays(family: str, replays: int, epochs: int) -> None:
    """Rounded up, so that nothing is left out."""
    recipe = FreeAdversarialTraining(family, replays=replays)

    assert recipe.schedule.epochs == epochs
    assert recipe.describe()["replays"] == replays
    assert recipe.step == recipe.epsilon


def test_fast_takes_one_step_of_five_quarters_of_epsilon(batch: tuple[Tensor, Tensor]) -> None:
    """From a random start: at the corner, but where the start lies too far on the other side."""
    inputs, labels = batch[0], batch[1] % 2
    model = TwoClasses().train()
    recipe = FastAdversarialTraining("digits", epsilon=0.1)
    start = recipe.random_start(inputs, generator()) - inputs
    uphill = model.uphill(inputs, labels)
    expected = (inputs + (start + 0.125 * uphill).clamp(-0.1, 0.1)).clamp(0, 1)
    corner = (inputs + 0.1 * uphill).clamp(0, 1)
    crossing = start * uphill >= -0.025

    loss = recipe.loss(model, inputs, labels, generator())

    (seen,) = model.seen
    torch.testing.assert_close(seen, expected)
    torch.testing.assert_close(seen[crossing], corner[crossing])
    assert 0.1 < (seen == corner).double().mean() < 1
    assert loss.item() == pytest.approx(cross_entropy(model(seen), labels).item())
