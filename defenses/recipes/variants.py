"""Recipes beside PGD's: TRADES, free and fast adversarial training, and falling gamma."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Recipe
from bench.defenses.recipes.pgd import LinfRecipe, PGDAdversarialTraining, evaluating
from bench.defenses.recipes.settings import settings
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor, nn


#: Standard deviation of the noise that the attack starts from, in units of the inputs.
START = 0.001


class TRADES(LinfRecipe):
    """TRADES (Zhang et al., ICML 2019): cross-entropy, and beta times how far an answer moves.

    loss = CE(f(x), y) + beta · KL(f(x) ‖ f(x')) (equation 5), x' raising the KL divergence from
    beside x. The attack sees the model in eval mode.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.
        step: length of a step; the family's by default.
        steps: how many.
        beta: weight of robustness; 6 as in the k-WTA paper.

    Raises:
        UsageError: there are no settings for this family, or a number that is not positive.
    """

    name: ClassVar[str] = "trades"

    def __init__(
        self,
        family: str,
        *,
        epsilon: float | None = None,
        step: float | None = None,
        steps: int = 10,
        beta: float = 6.0,
    ) -> None:
        super().__init__(family, epsilon=epsilon, step=step, steps=steps)
        if not beta > 0:
            raise UsageError(f"{self.name}: beta has to be positive (got {beta})")
        self.beta = beta

    def describe(self) -> dict[str, Any]:
        """Every setting."""
        return {**super().describe(), "beta": self.beta}

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean of both terms, a scalar."""
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        moved = self.perturb(model, inputs, generator)
        logits = model(inputs)
        answer, other = log_softmax(logits, dim=1), log_softmax(model(moved), dim=1)
        divergence = kl_div(other, answer, reduction="batchmean", log_target=True)
        return cross_entropy(logits, labels) + self.beta * divergence

    def perturb(self, model: nn.Module, inputs: Tensor, generator: Generator) -> Tensor:
        """What raises KL(f(x) ‖ f(x')): within epsilon of the inputs and in [0, 1].

        Args:
            model: left in the mode it came in, and without gradients in its parameters.
            inputs: float32 in [0, 1], (N, C, H, W).
            generator: on the CPU; draws where to begin, which must not be x: its gradient is 0.
        """
        import torch
        from torch.nn.functional import kl_div, log_softmax

        noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
        start = self.project(inputs, inputs + START * noise)
        with evaluating(model), torch.no_grad():
            answer = log_softmax(model(inputs), dim=1)

        def divergence(logits: Tensor) -> Tensor:
            moved = log_softmax(logits, dim=1)
            return kl_div(moved, answer, reduction="sum", log_target=True)

        return self.ascend(model, inputs, start, divergence, step=self.step, steps=self.steps)


class FreeAdversarialTraining(LinfRecipe):
    """Each batch is replayed, and one backward pass moves weights and perturbation (free AT).

    Shafahi et al., NeurIPS 2019, as in the k-WTA paper's code: the perturbation begins at zero for
    each batch (the original carries it over), and moves by epsilon. It stays in the box, which
    that code did not see to. The epochs are divided by the replays.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.
        replays: how often each batch is used; 8 served CIFAR-10 best in Shafahi et al., what the
            k-WTA paper took is not known.

    Raises:
        UsageError: there are no settings for this family, or a number that is not positive.
    """

    name: ClassVar[str] = "free-at"

    def __init__(self, family: str, *, epsilon: float | None = None, replays: int = 8) -> None:
        if replays < 1:
            raise UsageError(f"{self.name}: replays has to be at least 1 (got {replays})")
        radius = settings(family).epsilon if epsilon is None else epsilon
        super().__init__(family, epsilon=radius, step=radius, steps=1)
        self.schedule = self.schedule.with_epochs(math.ceil(self.schedule.epochs / replays))
        self.replays = replays

    def describe(self) -> dict[str, Any]:
        """Every setting."""
        return {**super().describe(), "replays": self.replays}

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy of the batch as it is: the first replay's, a scalar."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(model(inputs), labels)

    def losses(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Iterator[Tensor]:
        """The loss of each replay; its backward pass gives the next perturbation as well."""
        moved = inputs.detach().clone()
        for _ in range(self.replays):
            moved.requires_grad_()
            yield self.loss(model, moved, labels, generator)
            gradient = moved.grad
            if gradient is None:
                raise UsageError(f"{self.name}: the model's loss has no gradient in its inputs")
            moved = self.project(inputs, moved.detach() + self.step * gradient.sign())


class FastAdversarialTraining(PGDAdversarialTraining):
    """Cross-entropy after a single step from a random start (fast AT; Wong et al., ICLR 2020).

    The step is 1.25 epsilon, the learning rate cyclic. It may overfit to its own single step: the
    robust accuracy on validation examples, measured by PGD, then falls to zero within an epoch,
    and the best epoch lies before that.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.

    Raises:
        UsageError: there are no settings for this family, or epsilon is not positive.
    """

    name: ClassVar[str] = "fast-at"

    def __init__(self, family: str, *, epsilon: float | None = None) -> None:
        defaults = settings(family)
        radius = defaults.epsilon if epsilon is None else epsilon
        super().__init__(family, epsilon=radius, step=1.25 * radius, steps=1)
        self.schedule = defaults.fast


class GammaAnnealing(Recipe):
    """Goes on from a trained checkpoint, with a gamma that falls step by step to its target.

    How k-WTA with few winners is trained (Xiao et al., ICLR 2020).
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
