"""Training on the examples as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from bench.api import Recipe
from bench.defenses.recipes.settings import settings

if TYPE_CHECKING:
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
