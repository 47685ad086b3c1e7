"""k-Winners-Take-All (Xiao, Zhong, Zheng, ICLR 2020, arXiv 1905.10510)."""

from __future__ import annotations

from typing import Any

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
        backward_gamma: in (0, 1]; if given, the gradient passes the winners for this share
            instead, while the values stay those of `gamma`. With a larger share the gradient also
            sees the units that would win after a small change (BPDA, Athalye et al., ICML 2018).

    Raises:
        UsageError: gamma or backward_gamma is not in (0, 1].
    """

    def __init__(
        self, gamma: float = 0.1, *, exact: bool = False, backward_gamma: float | None = None
    ) -> None:
        super().__init__()
        for name, share in (("gamma", gamma), ("backward_gamma", backward_gamma)):
            if share is not None and not 0 < share <= 1:
                raise UsageError(f"{name} has to be greater than 0 and at most 1 (got {share})")
        self.gamma = gamma
        self.exact = exact
        self.backward_gamma = backward_gamma

    def extra_repr(self) -> str:
        """The parameters, as torch prints them."""
        own = f"gamma={self.gamma}, exact={self.exact}"
        return own if self.backward_gamma is None else f"{own}, backward={self.backward_gamma}"

    def winners(self, units: int) -> int:
        """How many of so many units win: k."""
        return _winners(self.gamma, units)

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
            mask = self._mask(x, self.gamma)
        if self.backward_gamma is None or not (torch.is_grad_enabled() and x.requires_grad):
            return torch.where(mask, x, 0)
        with torch.no_grad():
            passing = self._mask(x, self.backward_gamma)
        out: Tensor = _ValuesOfOne.apply(x, mask, passing)
        return out

    def _mask(self, x: Tensor, gamma: float) -> Tensor:
        """True where a unit wins when this share of its example's units does."""
        k = _winners(gamma, x.shape[1:].numel())
        return _exact_mask(x, k) if self.exact else _threshold_mask(x, k)


class _ValuesOfOne(torch.autograd.Function):
    """The values of one mask, the gradient of another.

    Not `soft + (hard - soft).detach()`, whose sum rounds: the values have to be exact.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, passing: Tensor) -> Tensor:
        ctx.save_for_backward(passing)
        return torch.where(mask, x, 0)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None, None]:
        (gradient,) = gradients
        (passing,) = ctx.saved_tensors
        return torch.where(passing, gradient, 0), None, None


def _winners(gamma: float, units: int) -> int:
    """How many of so many units win: k."""
    return max(1, int(gamma * units))


def _threshold_mask(x: Tensor, k: int) -> Tensor:
    """True where a unit is at least the k-th largest of its example."""
    top = x.flatten(1).topk(k, dim=1, sorted=False).values
    threshold = top.amin(dim=1)
    _refuse_nan(threshold)  # topk takes NaN for the largest value, and amin passes it on
    return x >= threshold.reshape(-1, *[1] * (x.ndim - 1))


def _exact_mask(x: Tensor, k: int) -> Tensor:
    """True for exactly k units of each example."""
    units = x.flatten(1)
    order = units.sort(dim=1, descending=True, stable=True)
    _refuse_nan(order.values[:, 0])  # sorting takes NaN for the largest value
    mask = torch.zeros_like(units, dtype=torch.bool).scatter_(1, order.indices[:, :k], True)
    return torch.empty_like(x, dtype=torch.bool).copy_(mask.view(x.shape))


def _refuse_nan(values: Tensor) -> None:
    if bool(values.isnan().any()):
        raise ModelError(
            "k-WTA got NaN, among which there is no k-th largest value; "
            "look for NaN in the weights or for a layer before it that overflows"
        )
