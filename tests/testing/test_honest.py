"""Honest models are good, hide nothing, and come out the same for a seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from bench.errors import UnknownNameError
from bench.models.checkpoints import checkpoint_folders, read_record
from bench.models.weights import weights_digest
from bench.testing import honest
from bench.testing.canaries import TWIN
from bench.testing.honest import HONEST, CommittedModel, HonestModel
from bench.train.fit import accuracy
from tests.testing.conftest import margin_gradient

if TYPE_CHECKING:
    from bench.api import Examples


def able(name: str) -> HonestModel | CommittedModel:
    """An honest model; skips where its data are not there."""
    if HONEST[name].why_not:
        pytest.skip(HONEST[name].why_not)
    return HONEST[name]


@pytest.mark.whole
@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("seed", [0, 1])
def test_honest_models_classify_well(name: str, seed: int) -> None:
    """At least nine of ten on the whole test split."""
    model = able(name)
    assert accuracy(model.build(seed), model.examples, "cpu") >= 0.9


@pytest.mark.parametrize("name", HONEST)
def test_honest_models_do_as_they_say(name: str) -> None:
    """The same answer twice, alone and in a batch, and a gradient for every example."""
    inputs = able(name).examples.inputs[:50]
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


def test_even_and_odd_are_two_classes_of_the_same_images() -> None:
    """A label says whether the digit is odd, and a model answers with two logits."""
    for split, original in zip(honest.parity(), honest.digits(), strict=True):
        assert torch.equal(split.inputs, original.inputs)
        assert split.classes == 2
        assert [digit % 2 for digit in original.labels.tolist()] == split.labels.tolist()
    assert honest.build("even-odd", 0)(honest.digits()[1].inputs[:3]).shape == (3, 2)


COMMITTED = {name: model for name, model in HONEST.items() if isinstance(model, CommittedModel)}


@pytest.mark.parametrize("name", COMMITTED)
def test_a_committed_model_says_how_it_was_trained(name: str) -> None:
    """The record beside it names its defense and command; the weights are those it describes."""
    model = COMMITTED[name]
    (folder, _) = checkpoint_folders()
    path = folder / f"{model.checkpoint}.safetensors"
    record = read_record(path)

    assert record is not None
    assert record.defense == f"{model.defense}[network={record.network}]"
    assert record.command.startswith("python -m bench train ")
    assert record.weights_digest == weights_digest(model.build(0))
    assert path.stat().st_size < 100_000


def test_without_its_data_a_model_cannot_be_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says what is missing; those on digits need nothing."""
    monkeypatch.delenv("WINNOW_DATA", raising=False)

    assert {name for name, model in HONEST.items() if model.why_not} == set(COMMITTED)
