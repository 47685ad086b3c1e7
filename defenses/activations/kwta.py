"""k-Winners-Take-All (Xiao, Zhong, Zheng, ICLR 2020, arXiv 1905.10510)."""

from __future__ import annotations

import functools
import importlib
import math
import subprocess
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.defenses.activations.kinds import KINDS, Kind, check_gamma, refuse_nan
from bench.errors import ModelError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

#: Up to so many threads numpy on one is the fastest way to the k largest; beyond, torch on all.
_THREADS = 4


class KWTA(nn.Module):
    """Keep the largest activations of each example and set the others to zero.

    Units compete in groups, and of each group those stay that reach its k-th largest score:

    | kind | group | score | in the authors' code |
    |---|---|---|---|
    | layer | all units of an example | x | Sparsify2D_vol, Sparsify1D |
    | channel | each channel | x | Sparsify2D |
    | magnitude | all units of an example | abs(x) | |
    | channel-magnitude | each channel | abs(x) | Sparsify2D_abs |
    | smallest | all units of an example | −abs(x) | |

    An example has C·H·W units in a convolutional layer and a channel H·W; in a linear layer, where
    a channel would be a single unit, all features are one group for every kind, as in the paper's
    code. `smallest` is what the authors' Sparsify2D_invabs is described as; as written, that drops
    the k − 1 smallest of a channel and keeps all others.

    Winners keep their value, negative ones too. The choice of winners counts as constant for the
    gradient, which is the incoming one on winners and zero elsewhere.

    Args:
        gamma: the share of a group of M units that wins, in (0, 1]; k = max(1, int(gamma · M)).
            The attribute may be changed between forward passes.
        kind: which units compete, and by what; one of `KINDS`.
        k: if given, so many win in place of a share: min(k, M).
        exact: keep exactly k of each group. Units tied at the k-th largest score then stay in the
            order of their index (C, H, W), lowest first; otherwise, as in the paper's code, all of
            them do.
        backward_factor: greater than 1; if given, the gradient passes the winners of so many times
            gamma (or k) instead, at least k + 1 of them, while the values stay. With more winners
            the gradient also sees the units that would win after a small change (BPDA, Athalye et
            al., ICML 2018).

    Raises:
        UsageError: a parameter is out of its range.
    """

    def __init__(
        self,
        gamma: float = 0.1,
        *,
        kind: Kind = "layer",
        k: int | None = None,
        exact: bool = False,
        backward_factor: float | None = None,
    ) -> None:
        super().__init__()
        check_gamma(gamma)
        if kind not in KINDS:
            raise UsageError(f"kind has to be one of {', '.join(KINDS)} (got {kind!r})")
        if k is not None and k < 1:
            raise UsageError(f"k has to be at least 1 (got {k})")
        if backward_factor is not None and not 1 < backward_factor < math.inf:
            raise UsageError(
                f"backward_factor has to be greater than 1 and finite (got {backward_factor})"
            )
        self.gamma = gamma
        self.kind = kind
        self.k = k
        self.exact = exact
        self.backward_factor = backward_factor

    def extra_repr(self) -> str:
        """The parameters, as torch prints them."""
        share = f"gamma={self.gamma}" if self.k is None else f"k={self.k}"
        own = f"{share}, kind={self.kind}, exact={self.exact}"
        factor = self.backward_factor
        return own if factor is None else f"{own}, backward_factor={factor}"

    def winners(self, units: int) -> int:
        """How many of a group of so many units win: k."""
        return max(1, int(self.gamma * units)) if self.k is None else min(self.k, units)

    def passing(self, units: int) -> int:
        """How many of a group of so many units the gradient passes."""
        k = self.winners(units)
        if self.backward_factor is None:
            return k
        if self.k is None:
            share = self.backward_factor * self.gamma
            return min(units, max(k + 1, int(share * units)))
        return min(units, max(k + 1, int(self.backward_factor * self.k)))

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
        first = 2 if self.kind.startswith("channel") and x.ndim > 2 else 1
        units = x.shape[first:].numel()
        k, passed = self.winners(units), self.passing(units)
        surrogate = passed != k and torch.is_grad_enabled() and x.requires_grad
        kernels = None if self.exact else _kernels(x, first)
        if kernels is not None:
            wide = passed if surrogate else k
            fused: Tensor = kernels.kwta(x, kind=self.kind, units=units, k=k, passing=wide)
            return fused
        with torch.no_grad():
            scores = self._scores(x.detach())
            mask = _mask(scores, first, k, exact=self.exact)
            passing = _mask(scores, first, passed, exact=self.exact) if surrogate else mask
        if not surrogate:
            return torch.where(mask, x, 0)
        out: Tensor = _ValuesOfOne.apply(x, mask, passing)
        return out

    def _scores(self, x: Tensor) -> Tensor:
        """By what units compete: the largest win."""
        if self.kind == "smallest":
            return -x.abs()
        return x.abs() if self.kind.endswith("magnitude") else x


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


def _kernels(x: Tensor, first: int) -> ModuleType | None:
    """The Triton kernels, where they serve such an input: on a GPU, in the usual dtypes."""
    kernels = _triton(x.get_device()) if x.is_cuda else None
    return kernels if kernels is not None and kernels.serves(x, first) else None


@functools.cache
def _triton(device: int) -> ModuleType | None:
    """The Triton kernels, if they run on a GPU: that takes Triton and a C compiler."""
    try:
        kernels = importlib.import_module("bench.defenses.activations.triton_kwta")
        one = torch.ones(1, 1, device=torch.device("cuda", device))
        kernels.kwta(one, kind="layer", units=1, k=1, passing=1)
    except (ImportError, RuntimeError, OSError, subprocess.SubprocessError) as problem:
        warnings.warn(
            f"k-WTA runs without its Triton kernels, slower, with the same results: {problem}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return kernels


def _mask(scores: Tensor, first: int, k: int, *, exact: bool) -> Tensor:
    """True for the winners of each group.

    A group lies along the dimensions from `first` on.

    Raises:
        ModelError: there is NaN among the scores.
    """
    groups = scores.flatten(first)
    kth = _largest(groups, k).amin(dim=-1)
    # A NaN anywhere is seen here: it is taken for the largest value, and amin passes it on.
    refuse_nan(kth.isnan())
    mask = scores >= kth.reshape(kth.shape + (1,) * (scores.ndim - first))
    if exact:
        won = mask.flatten(first).sum(dim=-1, dtype=torch.int32)
        if bool((won > k).any()):
            mask &= ~_late(groups, kth, won - k).reshape(mask.shape)
    return mask


def _largest(groups: Tensor, k: int) -> Tensor:
    """The k largest of each row, in any order."""
    by_numpy = groups.device.type == "cpu" and groups.dtype in (torch.float32, torch.float64)
    if not by_numpy or torch.get_num_threads() > _THREADS:
        return groups.topk(k, dim=-1, sorted=False).values
    rest = groups.shape[-1] - k
    return torch.from_numpy(np.partition(groups.numpy(), rest, axis=-1)[..., rest:])


def _late(groups: Tensor, kth: Tensor, surplus: Tensor) -> Tensor:
    """True for so many of each row's units tied at the k-th largest value, those of last index."""
    tied = groups == kth.unsqueeze(-1)
    place = tied.cumsum(dim=-1, dtype=torch.int32)
    return tied & (place > place[..., -1:] - surplus.unsqueeze(-1))
