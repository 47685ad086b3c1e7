"""k-Winners-Take-All (Xiao, Zhong, Zheng, ICLR 2020, arXiv 1905.10510)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.errors import ModelError, UsageError


class KWTA(nn.Module):
    """Keep the largest activations of each example and set the others to zero.

    Of the N units of an example (C·H·W in a convolutional layer, the features in a linear one)
    those stay that reach the k-th largest value. Winners keep their value, negative ones too. The
    choice of winners counts as constant for the gradient, which is the incoming one on winners and
    zero elsewhere.

    Args:
        gamma: the share of units that win, in (0, 1]; k = max(1, int(gamma · N)).
        exact: keep exactly k. Units tied at the k-th largest value then stay in the order of
            their index (C, H, W), lowest first; otherwise, as in the paper's code, all of them do.

    Raises:
        UsageError: gamma is not in (0, 1].
    """

    def __init__(self, gamma: float = 0.1, *, exact: bool = False) -> None:
        super().__init__()
        if not 0 < gamma <= 1:
            raise UsageError(f"gamma has to be greater than 0 and at most 1 (got {gamma})")
        self.gamma = gamma
        self.exact = exact

    def extra_repr(self) -> str:
        """The parameters, as torch prints them."""
        return f"gamma={self.gamma}, exact={self.exact}"

    def winners(self, units: int) -> int:
        """How many of so many units win: k."""
        return max(1, int(self.gamma * units))

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each example on its own.

        Args:
            x: any floating dtype, shape (N, ...), at least two dimensions.

        Returns:
            Shape, dtype and memory format of `x`.

        Raises:
            ModelError: `x` has no unit to choose from, or contains NaN, which has no order.
        """
        if x.ndim < 2 or 0 in x.shape[1:]:
            raise ModelError(f"k-WTA needs inputs (N, units, ...); got shape {tuple(x.shape)}")
        with torch.no_grad():
            mask = self._exact_mask(x) if self.exact else self._threshold_mask(x)
        return torch.where(mask, x, 0)

    def _threshold_mask(self, x: Tensor) -> Tensor:
        """True where a unit is at least the k-th largest of its example."""
        units = x.flatten(1)
        top = units.topk(self.winners(units.shape[1]), dim=1, sorted=False).values
        threshold = top.amin(dim=1)
        _refuse_nan(threshold)  # topk takes NaN for the largest value, and amin passes it on
        return x >= threshold.reshape(-1, *[1] * (x.ndim - 1))

    def _exact_mask(self, x: Tensor) -> Tensor:
        """True for exactly k units of each example."""
        units = x.flatten(1)
        order = units.sort(dim=1, descending=True, stable=True)
        _refuse_nan(order.values[:, 0])  # sorting takes NaN for the largest value
        chosen = order.indices[:, : self.winners(units.shape[1])]
        mask = torch.zeros_like(units, dtype=torch.bool).scatter_(1, chosen, True)
        return torch.empty_like(x, dtype=torch.bool).copy_(mask.view(x.shape))


def _refuse_nan(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise ModelError(
            "k-WTA got NaN, among which there is no k-th largest value; "
            "look for NaN in the weights or for a layer before it that overflows"
        )
