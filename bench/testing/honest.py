"""Six models on digits that hide nothing: whatever calls one of them suspect is a false alarm.

Each is trained in a few seconds on one core, and the same seed gives the same weights.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench import registry
from bench.data import open_dataset
from bench.errors import UnknownNameError, UsageError
from bench.train.fit import Training, derived_seed, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Examples

SHAPE = (1, 8, 8)
CLASSES = 10
#: Of natural and of adversarial training; both settle long before the recipes' own end.
EPOCHS, ADVERSARIAL_EPOCHS = 20, 15


@dataclasses.dataclass(frozen=True)
class HonestModel:
    """A model and how it is trained."""

    name: str
    architecture: Callable[[], nn.Module]
    """Makes it with untrained weights, drawn from torch's global generator."""
    defense: str = "relu"
    """The registered defense whose recipe trains it."""
    epochs: int = EPOCHS

    def build(self, seed: int) -> nn.Module:
        """The model trained from a seed, in eval mode, its parameters frozen.

        A copy: it is trained once per process.
        """
        return copy.deepcopy(_built(self, seed))


@functools.cache
def digits() -> tuple[Examples, Examples]:
    """The train and the test split."""
    dataset = open_dataset("digits")
    return dataset.load("train"), dataset.load("test")


def network(defense: str) -> nn.Module:
    """The small CNN with a registered defense's activations and untrained weights."""
    return registry.defenses.create(defense).build(network="cnn", shape=SHAPE, classes=CLASSES)


@functools.cache
def _built(model: HonestModel, seed: int) -> nn.Module:
    """Train on one thread; the learning rate falls after three quarters of the epochs.

    Raises:
        UsageError: the defense has no recipe.
    """
    recipe = registry.defenses.create(model.defense).recipe("digits")
    if recipe is None:
        raise UsageError(f"defense {model.defense!r} has no recipe for digits")
    recipe.schedule = dataclasses.replace(
        recipe.schedule, epochs=model.epochs, milestones=(3 * model.epochs // 4,)
    )
    examples, _ = digits()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(seed, model.name))
            module = model.architecture().train()
            state = Path(folder) / "state"
            fit(Training(module, recipe, examples, seed), state)
    finally:
        torch.set_num_threads(threads)
    return module.eval().requires_grad_(False)


class Standardise(nn.Module):
    """Inputs shifted and scaled to mean 0 and deviation 1 over the data set.

    Args:
        mean: of the data set's pixels.
        deviation: their standard deviation.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("deviation", torch.tensor(deviation))

    def forward(self, x: Tensor) -> Tensor:
        """Shape and dtype of `x`."""
        return (x - self.mean) / self.deviation


def _linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, CLASSES))


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
        nn.Linear(64, CLASSES),
    )  # fmt: skip


def _cnn() -> nn.Module:  # the twin of the canaries
    return network("relu")


def _standardised() -> nn.Module:
    inputs = digits()[0].inputs
    return nn.Sequential(Standardise(float(inputs.mean()), float(inputs.std())), _cnn())


def _with_dropout() -> nn.Module:  # which eval mode turns off
    layers: list[nn.Module] = []
    for layer in _cnn().children():
        if isinstance(layer, nn.Linear):
            layers.append(nn.Dropout(0.25))
        layers.append(layer)
    return nn.Sequential(*layers)


#: Every honest model by its name.
HONEST = {
    model.name: model
    for model in (
        HonestModel("linear", _linear),
        HonestModel("mlp", _mlp),
        HonestModel("cnn", _cnn),
        HonestModel("cnn-at", _cnn, "relu-at", ADVERSARIAL_EPOCHS),
        HonestModel("cnn-standardised", _standardised),
        HonestModel("cnn-dropout", _with_dropout),
    )
}


def build(name: str, seed: int) -> nn.Module:
    """An honest model trained from a seed, in eval mode, its parameters frozen.

    Raises:
        UnknownNameError: there is no such model.
    """
    if name not in HONEST:
        raise UnknownNameError("honest model", name, HONEST)
    return HONEST[name].build(seed)
