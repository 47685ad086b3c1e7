"""Adversarial training by projected gradient descent (Madry et al., ICLR 2018)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.defenses.recipes.linf import LinfRecipe, cross_entropy_of

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


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
