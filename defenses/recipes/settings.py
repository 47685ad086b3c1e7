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
    """Of natural training."""
    epsilon: float
    """Radius of the Linf ball of adversarial training."""
    step: float
    """Length of a step of its attack."""
    adversarial: Schedule | None = None
    """Of adversarial training, where it differs."""

    @property
    def adversarial_schedule(self) -> Schedule:
        """The schedule of adversarial training."""
        return self.adversarial or self.schedule


_CIFAR = Settings(
    Schedule(epochs=80, batch_size=256, learning_rate=0.1, milestones=(50,), augment=True),
    epsilon=0.031,
    step=0.007,
)
_SVHN = Settings(
    Schedule(epochs=80, batch_size=256, learning_rate=0.1, milestones=(50,)),
    epsilon=0.047,
    step=0.01,
)
_MNIST = Settings(Schedule(epochs=20, batch_size=200, learning_rate=0.01), epsilon=0.3, step=0.01)
_DIGITS = Settings(
    Schedule(epochs=40, batch_size=64, learning_rate=0.05, milestones=(30,)),
    epsilon=0.1,
    step=0.025,
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
