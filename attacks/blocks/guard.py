"""A module put between a library's attack and the model, to end what does not end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from bench.errors import AttackError

if TYPE_CHECKING:
    from torch import Tensor


class Guard(nn.Module):
    """The model, with an end to its patience.

    Some of Foolbox's loops end only when the model lets them: HopSkipJump halves its step until
    every example of the batch is adversarial, which a model of random or NaN logits never grants.

    Args:
        model: float32 (N, C, H, W) to logits (N, classes).
        limit: forwards per example after which the attack is stopped.
    """

    def __init__(self, model: nn.Module, limit: float) -> None:
        super().__init__()
        self.model = model
        self.limit = limit
        self.calls = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes).

        Raises:
            AttackError: the limit is reached.
        """
        self.calls += 1
        if self.calls > self.limit:
            raise AttackError(
                f"the attack does not end on this model: stopped after {self.limit:.0f} forwards "
                "per example, far beyond its cost"
            )
        logits: Tensor = self.model(x)
        return logits
