"""Models that hide nothing: whatever calls one of them suspect is a false alarm.

Those on digits are trained in a few seconds on one core, and the same seed gives the same weights.
Those on MNIST are checkpoints that come with Winnow, and need the data: a folder `mnist` in
Hugging Face's layout under the one that `WINNOW_DATA` names.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import importlib.resources
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from bench import registry
from bench.data import open_dataset
from bench.errors import UnknownNameError, UsageError
from bench.models.checkpoints import load_weights
from bench.testing import architectures
from bench.testing.architectures import CLASSES
from bench.train.fit import Training, derived_seed, fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Examples

SHAPE = (1, 8, 8)
#: Of natural and of adversarial training; both settle long before the recipes' own end.
EPOCHS, ADVERSARIAL_EPOCHS = 20, 15


@functools.cache
def digits() -> tuple[Examples, Examples]:
    """The train and the test split."""
    dataset = open_dataset("digits")
    return dataset.load("train"), dataset.load("test")


@functools.cache
def parity() -> tuple[Examples, Examples]:
    """Both splits of digits with two classes: even and odd."""
    train, test = (
        dataclasses.replace(split, labels=split.labels % 2, class_names=("even", "odd"))
        for split in digits()
    )
    return train, test


@functools.cache
def mnist() -> Examples:
    """The test split of MNIST.

    Raises:
        DataError: there is none in the folder that `WINNOW_DATA` names.
    """
    return open_dataset(f"parquet:{Path(os.environ['WINNOW_DATA']) / 'mnist'}").load("test")


@dataclasses.dataclass(frozen=True)
class HonestModel:
    """A model and how it is trained."""

    name: str
    architecture: Callable[[], nn.Module]
    """Makes it with untrained weights, drawn from torch's global generator."""
    defense: str = "relu"
    """The registered defense whose recipe trains it."""
    epochs: int = EPOCHS
    learning_rate: float | None = None
    """The first; the recipe's where None."""
    data: Callable[[], tuple[Examples, Examples]] = digits
    """What it is trained on, and what it is examined on."""

    why_not = ""
    """Why it cannot be examined here; empty where it can."""

    @property
    def examples(self) -> Examples:
        """The test split of its data."""
        return self.data()[1]

    def build(self, seed: int) -> nn.Module:
        """The model trained from a seed, in eval mode, its parameters frozen.

        A copy: it is trained once per process.
        """
        return copy.deepcopy(_built(self, seed))


@dataclasses.dataclass(frozen=True)
class CommittedModel:
    """A model on MNIST whose weights come with Winnow; the record beside them says how to train it.

    A seed draws its examples and attacks, and leaves the weights alone.
    """

    name: str
    defense: str
    """The registered one that builds it."""
    checkpoint: str
    """Its file, without the ending."""

    @property
    def why_not(self) -> str:
        """Why it cannot be examined here; empty where it can."""
        return "" if os.environ.get("WINNOW_DATA") else "WINNOW_DATA names no folder with MNIST"

    @property
    def examples(self) -> Examples:
        """The test split of MNIST."""
        return mnist()

    def build(self, seed: int) -> nn.Module:
        """The model, in eval mode, its parameters frozen.

        Raises:
            CheckpointError: its file is missing or damaged.
        """
        module = registry.defenses.create(self.defense).build(
            network="mnist-lenet", shape=(1, 28, 28), classes=CLASSES
        )
        folder = importlib.resources.files("bench.defenses").joinpath("checkpoints")
        load_weights(Path(str(folder.joinpath(f"{self.checkpoint}.safetensors"))), module)
        return module.eval().requires_grad_(False)


def network(defense: str, classes: int = CLASSES) -> nn.Module:
    """The small CNN with a registered defense's activations and untrained weights."""
    return registry.defenses.create(defense).build(network="cnn", shape=SHAPE, classes=classes)


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
        recipe.schedule,
        epochs=model.epochs,
        milestones=(3 * model.epochs // 4,),
        learning_rate=model.learning_rate or recipe.schedule.learning_rate,
    )
    examples, _ = model.data()
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


def _cnn() -> nn.Module:  # the twin of the canaries
    return network("relu")


def _standardised() -> nn.Module:
    inputs = digits()[0].inputs
    scale = architectures.Standardise(float(inputs.mean()), float(inputs.std()))
    return nn.Sequential(scale, _cnn())


def _with_dropout() -> nn.Module:  # which eval mode turns off
    layers: list[nn.Module] = []
    for layer in _cnn().children():
        if isinstance(layer, nn.Linear):
            layers.append(nn.Dropout(0.25))
        layers.append(layer)
    return nn.Sequential(*layers)


_max_pool = functools.partial(architectures.pooled, nn.MaxPool2d, nn.ReLU)
_average_pool = functools.partial(architectures.pooled, nn.AvgPool2d, nn.ReLU)
_gelu = functools.partial(architectures.pooled, nn.AvgPool2d, nn.GELU)
_LENET = "network-mnist-lenet-mnist-lenet-f66687d7"

#: Every honest model by its name.
HONEST: dict[str, HonestModel | CommittedModel] = {
    model.name: model
    for model in (
        HonestModel("linear", architectures.linear),
        HonestModel("mlp", architectures.mlp),
        HonestModel("cnn", _cnn),
        HonestModel("cnn-at", _cnn, "relu-at", ADVERSARIAL_EPOCHS),
        HonestModel("cnn-standardised", _standardised),
        HonestModel("cnn-dropout", _with_dropout),
        HonestModel("max-pool", _max_pool),
        HonestModel("max-pool-at", _max_pool, "relu-at", ADVERSARIAL_EPOCHS),
        HonestModel("average-pool", _average_pool),
        HonestModel("gelu", _gelu),
        HonestModel("layer-norm", architectures.layer_norm),
        HonestModel("transformer", architectures.Transformer, learning_rate=0.01),
        HonestModel("even-odd", functools.partial(network, "relu", 2), data=parity),
        CommittedModel("mnist-max-pool", "relu", f"relu-{_LENET}"),
        CommittedModel("mnist-max-pool-at", "relu-fast", f"relu-fast-{_LENET}"),
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
