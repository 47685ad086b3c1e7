"""Training k-WTA with few winners: gamma falls while it trains (Xiao et al., ICLR 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Recipe
from bench.defenses.recipes.settings import settings
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor, nn


class GammaAnnealing(Recipe):
    """Goes on from a trained checkpoint, with a gamma that falls step by step to its target.

    On CIFAR-10 from 0.2 by 0.005 every two epochs, on MNIST from 0.1 by 0.001 every epoch. With
    fewer epochs gamma falls faster; in the last one it is the target's in any case.

    Args:
        family: of the data set, such as `cifar10`; it sets schedule, first gamma and steps.
        gamma: the target.
        base: the recipe whose loss it trains with.
        start: the defense, as written, whose weights it starts from; its gamma is `first_gamma`.

    Raises:
        UsageError: no settings for this family, or gamma is not below the first one.
    """

    name: ClassVar[str] = "gamma-annealing"

    def __init__(self, family: str, *, gamma: float, base: Recipe, start: str) -> None:
        annealing = settings(family).annealing
        if not 0 < gamma < annealing.gamma:
            raise UsageError(
                f"{self.name} on {family} starts at gamma {annealing.gamma}: its target has to be "
                f"between 0 and that (got {gamma})"
            )
        self.first, self.fall, self.every = annealing.gamma, annealing.step, annealing.every
        self.schedule = annealing.schedule
        self.planned = annealing.schedule.epochs
        self.gamma = gamma
        self.base = base
        self.start = start

    def describe(self) -> dict[str, Any]:
        """Every setting, with the recipe whose loss it uses."""
        base = self.base.describe()
        own = super().describe()
        extra = {key: base[key] for key in base.keys() - own.keys()}
        gammas = {"first_gamma": self.first, "last_gamma": self.gamma}
        falls = {"gamma_step": self.fall, "gamma_every": self.every}
        return {**own, **gammas, **falls, "loss": self.base.name, **extra}

    def gamma_at(self, epoch: int) -> float:
        """The share of winners in an epoch, counted from 0."""
        if epoch + 1 >= self.schedule.epochs:
            return self.gamma
        planned = epoch * self.planned // self.schedule.epochs
        falls = planned // self.every + 1
        return max(self.gamma, round(self.first - self.fall * falls, 6))

    def begin_epoch(self, model: nn.Module, epoch: int) -> None:
        """Set gamma in every k-WTA of the model."""
        from bench.defenses.activations import KWTA

        self.base.begin_epoch(model, epoch)
        for module in model.modules():
            if isinstance(module, KWTA):
                module.gamma = self.gamma_at(epoch)

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The base's."""
        return self.base.loss(model, inputs, labels, generator)

    def losses(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Iterator[Tensor]:
        """The base's."""
        return self.base.losses(model, inputs, labels, generator)

    def attack(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The base's."""
        return self.base.attack(model, inputs, labels, generator)
