"""Training on the examples as they are, and adversarial training by PGD (Madry et al., ICLR 2018).

`LinfRecipe` is what adversarial training in an Linf ball has in common: the ball, and the ascent.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Recipe
from bench.defenses.recipes.settings import settings
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Generator, Tensor, nn


class Natural(Recipe):
    """Cross-entropy on unperturbed examples.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule.

    Raises:
        UsageError: there are no settings for this family.
    """

    name: ClassVar[str] = "natural"

    def __init__(self, family: str) -> None:
        self.schedule = settings(family).schedule

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy of the batch, a scalar."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(model(inputs), labels)


class LinfRecipe(Recipe):
    """A recipe that perturbs its batches within an Linf ball and the box.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.
        step: length of a step; the family's by default.
        steps: how many.

    Raises:
        UsageError: there are no settings for this family, or a number that is not positive.
    """

    def __init__(
        self,
        family: str,
        *,
        epsilon: float | None = None,
        step: float | None = None,
        steps: int = 10,
    ) -> None:
        defaults = settings(family)
        self.schedule = defaults.schedule
        self.epsilon = defaults.epsilon if epsilon is None else epsilon
        self.step = defaults.step if step is None else step
        self.steps = steps
        for name, value in (("epsilon", self.epsilon), ("step", self.step), ("steps", steps)):
            if not value > 0:
                raise UsageError(f"{self.name}: {name} has to be positive (got {value})")

    def describe(self) -> dict[str, Any]:
        """Every setting, those of the attack included."""
        attack = {"epsilon": self.epsilon, "step": self.step, "steps": self.steps}
        return {**super().describe(), "norm": "Linf", **attack}

    def attack(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """PGD of 10 steps from a random start, each a quarter of epsilon."""
        start = self.random_start(inputs, generator)
        loss = cross_entropy_of(labels)
        return self.ascend(model, inputs, start, loss, step=self.epsilon / 4, steps=10)

    def random_start(self, inputs: Tensor, generator: Generator) -> Tensor:
        """A uniform point of each input's ball, in the box; same shape and device."""
        import torch

        noise = torch.rand(inputs.shape, generator=generator).to(inputs.device)
        return self.project(inputs, inputs + self.epsilon * (2 * noise - 1))

    def project(self, inputs: Tensor, moved: Tensor) -> Tensor:
        """The closest point within epsilon of the inputs and in [0, 1]."""
        low = (inputs - self.epsilon).clamp(min=0)
        high = (inputs + self.epsilon).clamp(max=1)
        return moved.clamp(min=low, max=high)

    def ascend(
        self,
        model: nn.Module,
        inputs: Tensor,
        start: Tensor,
        loss: Callable[[Tensor], Tensor],
        *,
        step: float,
        steps: int,
    ) -> Tensor:
        """The last iterate of steps along the sign of the gradient, the model in eval mode.

        Args:
            model: left in the mode it came in, and without gradients in its parameters.
            inputs: float32 in [0, 1], (N, C, H, W).
            start: shape of the inputs; where to begin.
            loss: from logits (N, classes) to a scalar, a sum over the examples.
            step: length of a step.
            steps: how many.

        Returns:
            Within epsilon of the inputs and in [0, 1].
        """
        import torch

        moved = start
        with evaluating(model), torch.enable_grad():
            for _ in range(steps):
                moved.requires_grad_()
                (gradient,) = torch.autograd.grad(loss(model(moved)), moved)
                moved = self.project(inputs, moved.detach() + step * gradient.sign())
        return moved


class PGDAdversarialTraining(LinfRecipe):
    """Cross-entropy on adversarial examples in an Linf ball, found anew for each batch.

    The attack starts at a random point of the ball, raises the loss of the true label, and sees
    the model in eval mode. Its iterates stay in [0, 1]; the k-WTA paper's did not.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.
        step: length of a step; the family's by default.
        steps: how many.

    Raises:
        UsageError: there are no settings for this family, or a number that is not positive.
    """

    name: ClassVar[str] = "pgd-at"

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy of the perturbed batch, a scalar."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(model(self.perturb(model, inputs, labels, generator)), labels)

    def perturb(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The last iterate of the attack: within epsilon of the inputs and in [0, 1].

        Args:
            model: left in the mode it came in, and without gradients in its parameters.
            inputs: float32 in [0, 1], (N, C, H, W).
            labels: int64, (N,).
            generator: on the CPU; draws the starting points.
        """
        start = self.random_start(inputs, generator)
        loss = cross_entropy_of(labels)
        return self.ascend(model, inputs, start, loss, step=self.step, steps=self.steps)


def cross_entropy_of(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """The cross-entropy of these labels, summed over the examples."""
    from torch.nn.functional import cross_entropy

    return lambda logits: cross_entropy(logits, labels, reduction="sum")


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; afterwards in the mode it came in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
