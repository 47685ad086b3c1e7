"""Adversarial training by projected gradient descent (Madry et al., ICLR 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Recipe
from defenses.recipes.settings import settings

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class PGDAdversarialTraining(Recipe):
    """Cross-entropy on adversarial examples in an Linf ball, found anew for each batch.

    The attack starts at a random point of the ball, raises the loss of the true label, and sees
    the model in eval mode. Its iterates stay in [0, 1]; the k-WTA paper's did not.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.
        step: length of a step; the family's by default.
        steps: how many.

    Raises:
        UsageError: there are no settings for this family.
    """

    name: ClassVar[str] = "pgd-at"

    def __init__(
        self,
        family: str,
        *,
        epsilon: float | None = None,
        step: float | None = None,
        steps: int = 10,
    ) -> None:
        defaults = settings(family)
        self.schedule = defaults.adversarial_schedule
        self.epsilon = defaults.epsilon if epsilon is None else epsilon
        self.step = defaults.step if step is None else step
        self.steps = steps

    def describe(self) -> dict[str, Any]:
        """Every setting, those of the attack included."""
        attack = {"epsilon": self.epsilon, "step": self.step, "steps": self.steps}
        return {**super().describe(), "norm": "Linf", **attack}

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
        import torch
        from torch.nn.functional import cross_entropy

        low = (inputs - self.epsilon).clamp(min=0)
        high = (inputs + self.epsilon).clamp(max=1)
        noise = torch.rand(inputs.shape, generator=generator).to(inputs.device)
        adversarial = (inputs + self.epsilon * (2 * noise - 1)).clamp(min=low, max=high)
        training = model.training
        model.eval()
        try:
            for _ in range(self.steps):
                adversarial.requires_grad_()
                loss = cross_entropy(model(adversarial), labels, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, adversarial)
                moved = adversarial.detach() + self.step * gradient.sign()
                adversarial = moved.clamp(min=low, max=high)
        finally:
            model.train(training)
        return adversarial
