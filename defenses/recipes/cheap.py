"""Adversarial training at about the cost of natural training: free, and fast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar

from bench.defenses.recipes.linf import LinfRecipe, cross_entropy_of
from bench.defenses.recipes.settings import settings
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Generator, Tensor, nn


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


class FastAdversarialTraining(LinfRecipe):
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

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy of the perturbed batch, a scalar."""
        from torch.nn.functional import cross_entropy

        moved = self.ascend(
            model,
            inputs,
            self.random_start(inputs, generator),
            cross_entropy_of(labels),
            step=self.step,
            steps=1,
        )
        return cross_entropy(model(moved), labels)
