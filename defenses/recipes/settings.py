"""Training settings for each family of data sets.

Those of CIFAR-10, SVHN and MNIST are the ones of the k-WTA paper's code (Xiao, Zhong, Zheng, ICLR
2020); CIFAR-100 and Fashion-MNIST take over those of their sisters; digits has settings of ours.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.api import Schedule
from bench.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """How to train on one family."""

    schedule: Schedule
    """Of natural and of adversarial training."""
    epsilon: float
    """Radius of the Linf ball of adversarial training."""
    step: float
    """Length of a step of its attack."""
    fast: Schedule
    """Of fast adversarial training."""
    annealing: Annealing
    """Of k-WTA with few winners."""


@dataclass(frozen=True)
class Annealing:
    """How gamma falls from that of a trained checkpoint."""

    gamma: float
    """Of the checkpoint."""
    step: float
    """By which gamma falls."""
    every: int
    """Epochs between two falls."""
    schedule: Schedule
    """Long enough for gamma to fall to 0.025 on CIFAR-10, and to `step` elsewhere."""


_CIFAR = Settings(
    Schedule(
        epochs=80,
        batch_size=256,
        learning_rate=0.1,
        milestones=(50,),
        augment=True,
        validation=1000,
    ),
    epsilon=0.031,
    step=0.007,
    # Wong et al. (ICLR 2020) for CIFAR-10.
    fast=Schedule(
        epochs=30,
        batch_size=128,
        learning_rate=0.2,
        weight_decay=5e-4,
        augment=True,
        cyclic=True,
        validation=1000,
    ),
    annealing=Annealing(
        gamma=0.2,
        step=0.005,
        every=2,
        schedule=Schedule(epochs=70, batch_size=256, learning_rate=0.001, augment=True),
    ),
)
_SVHN = Settings(
    Schedule(epochs=80, batch_size=256, learning_rate=0.1, milestones=(50,), validation=1000),
    epsilon=0.047,
    step=0.01,
    fast=Schedule(
        epochs=30,
        batch_size=128,
        learning_rate=0.05,
        cyclic=True,
        weight_decay=5e-4,
        validation=1000,
    ),
    annealing=Annealing(
        gamma=0.2,
        step=0.005,
        every=2,
        schedule=Schedule(epochs=70, batch_size=256, learning_rate=0.001),
    ),
)
_MNIST = Settings(
    Schedule(epochs=20, batch_size=200, learning_rate=0.01, validation=1000),
    epsilon=0.3,
    step=0.01,
    fast=Schedule(epochs=10, batch_size=100, learning_rate=0.05, cyclic=True, validation=1000),
    annealing=Annealing(
        gamma=0.1,
        step=0.001,
        every=1,
        schedule=Schedule(epochs=99, batch_size=200, learning_rate=0.001),
    ),
)
_DIGITS = Settings(
    Schedule(epochs=40, batch_size=64, learning_rate=0.05, milestones=(30,)),
    epsilon=0.1,
    step=0.025,
    fast=Schedule(epochs=40, batch_size=64, learning_rate=0.1, cyclic=True),
    annealing=Annealing(
        gamma=0.2,
        step=0.005,
        every=1,
        schedule=Schedule(epochs=39, batch_size=64, learning_rate=0.01),
    ),
)

_FAMILIES = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "digits": _DIGITS,
    "fashion-mnist": _MNIST,
    "mnist": _MNIST,
    "svhn": _SVHN,
}


def settings(family: str) -> Settings:
    """The settings of a family.

    Raises:
        UsageError: there are none.
    """
    if family not in _FAMILIES:
        raise UsageError(
            f"no training settings for data of family {family!r}; known: {', '.join(_FAMILIES)}"
        )
    return _FAMILIES[family]
