"""Honest models are good, hide nothing, and come out the same for a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from bench.errors import UnknownNameError
from bench.models.weights import weights_digest
from bench.testing import honest
from bench.testing.canaries import TWIN
from bench.testing.honest import HONEST
from bench.train.fit import accuracy
from tests.testing.conftest import margin_gradient

if TYPE_CHECKING:
    from bench.api import Examples


@pytest.mark.whole
@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("seed", [0, 1])
def test_honest_models_classify_well(name: str, seed: int, examples: Examples) -> None:
    """At least nine of ten on the whole test split."""
    assert accuracy(honest.build(name, seed), examples, "cpu") >= 0.9


@pytest.mark.parametrize("name", HONEST)
def test_honest_models_do_as_they_say(name: str, inputs: Tensor) -> None:
    """The same answer twice, alone and in a batch, and a gradient for every example."""
    model = honest.build(name, 0)

    with torch.no_grad():
        logits = model(inputs)
        alone = torch.cat([model(row[None]) for row in inputs])

        torch.testing.assert_close(model(inputs), logits, rtol=0, atol=0)
    torch.testing.assert_close(alone, logits, rtol=1e-4, atol=1e-4)
    assert bool(margin_gradient(model, inputs).flatten(1).any(dim=1).all())


@pytest.mark.whole
def test_a_seed_fixes_the_weights(twin: nn.Module) -> None:
    """Trained anew, the weights are the same bit for bit; another seed gives others."""
    trained = honest._built.__wrapped__(HONEST[TWIN], 0)

    assert weights_digest(trained) == weights_digest(twin)
    assert weights_digest(honest.build(TWIN, 1)) != weights_digest(twin)


def test_training_leaves_random_numbers_alone() -> None:
    """A program's own draws do not depend on whether a model was trained in between."""
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)

    honest._built.__wrapped__(HONEST["linear"], 0)

    torch.testing.assert_close(torch.rand(4), expected, rtol=0, atol=0)


def test_what_is_built_belongs_to_the_caller(twin: nn.Module) -> None:
    """Spoiling a model does not spoil the next one."""
    digest = weights_digest(twin)

    with torch.no_grad():
        next(twin.parameters()).zero_()

    assert weights_digest(honest.build(TWIN, 0)) == digest


def test_an_unknown_model_is_named() -> None:
    """With what looks like it."""
    with pytest.raises(UnknownNameError, match=r"honest model 'ccn'; did you mean 'cnn'"):
        honest.build("ccn", 0)


def test_adversarial_training_helps(examples: Examples) -> None:
    """Against a single step of Linf 0.1 the adversarially trained model keeps more."""

    def survivors(model: nn.Module) -> float:
        x = examples.inputs.clone().requires_grad_()
        loss = nn.functional.cross_entropy(model(x), examples.labels)
        (gradient,) = torch.autograd.grad(loss, x)
        moved = (examples.inputs + 0.1 * gradient.sign()).clamp(0, 1)
        return float((model(moved).argmax(dim=1) == examples.labels).float().mean())

    assert survivors(honest.build("cnn-at", 0)) > survivors(honest.build("cnn", 0)) + 0.1
