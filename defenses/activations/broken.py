"""The broken ReLU, by which k-WTA's authors tried discontinuity alone (arXiv 1905.10510)."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional

from bench.errors import UsageError


class BrokenReLU(nn.Module):
    """Keep what is greater than zero and set all else to a negative constant.

    x where x > 0, −height elsewhere, zero included: `breakReLU` of the authors' code. The gradient
    is the incoming one where x > 0 and zero elsewhere, blind to the jump. With height 0 it is ReLU.
    NaN stays NaN.

    Args:
        height: of the jump at zero, finite and not negative; the authors' default is 5.

    Raises:
        UsageError: height is negative or not finite.
    """

    def __init__(self, height: float = 5.0) -> None:
        super().__init__()
        if not 0 <= height < math.inf:
            raise UsageError(f"height has to be finite and at least 0 (got {height})")
        self.height = height

    def extra_repr(self) -> str:
        """The parameter, as torch prints it."""
        return f"height={self.height}"

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each unit on its own: any floating dtype and shape, both kept."""
        return functional.threshold(x, 0.0, -self.height)
