"""k-Winners-Take-All (Xiao, Zhong, Zheng, ICLR 2020, arXiv 1905.10510)."""

from __future__ import annotations

import functools
import importlib
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.defenses.activations import numpy_kwta
from bench.defenses.activations.kinds import KINDS, Kind, check_gamma, refuse_nan
from bench.defenses.activations.smooth import SCORES, Competition, WinnersTakeAll, smoothed
from bench.errors import ModelError, UsageError

if TYPE_CHECKING:
    from types import ModuleType

#: Kinds that do not compete by value.
_SCORES = {
    "magnitude": "magnitude",
    "channel-magnitude": "magnitude",
    "smallest": "smallness",
}


class KWTA(WinnersTakeAll):
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
    gradient, which is the incoming one on winners and zero elsewhere, until `soften` is called.

    Args:
        gamma: the share of a group of M units that wins, in (0, 1]; k = max(1, int(gamma · M)).
            The attribute may be changed between forward passes.
        kind: which units compete, and by what; one of `KINDS`.
        k: if given, so many win in place of a share: min(k, M).
        exact: keep exactly k of each group. Units tied at the k-th largest score then stay in the
            order of their index (C, H, W), lowest first; otherwise, as in the paper's code, all of
            them do.

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
    ) -> None:
        super().__init__()
        check_gamma(gamma)
        if kind not in KINDS:
            raise UsageError(f"kind has to be one of {', '.join(KINDS)} (got {kind!r})")
        if k is not None and k < 1:
            raise UsageError(f"k has to be at least 1 (got {k})")
        self.gamma = gamma
        self.kind = kind
        self.k = k
        self.exact = exact

    def extra_repr(self) -> str:
        """The parameters, as torch prints them."""
        share = f"gamma={self.gamma}" if self.k is None else f"k={self.k}"
        return f"{share}, kind={self.kind}, exact={self.exact}"

    def winners(self, units: int) -> int:
        """How many of a group of so many units win: k."""
        return max(1, int(self.gamma * units)) if self.k is None else min(self.k, units)

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
        how = self.competition(x)
        first = 2 if how.channels else 1
        k = self.winners(x.shape[first:].numel())
        smooth = self.smoothness(x)
        if smooth is None or k == x.shape[first:].numel():
            return self._chosen(x, how, first, k)
        return smoothed(x, self._chosen(x.detach(), how, first, k), how, smooth)

    def competition(self, x: Tensor) -> Competition:
        """How the units of such an input compete."""
        score = _SCORES.get(self.kind, "value")
        return Competition(score, channels=self.kind.startswith("channel") and x.ndim > 2)

    def _chosen(self, x: Tensor, how: Competition, first: int, k: int) -> Tensor:
        """The k winners of each group, which lies along the dimensions from `first` on."""
        kernels = None if self.exact else _kernels(x, first)
        if kernels is not None:
            fused: Tensor = kernels.kwta(x, kind=self.kind, units=x.shape[first:].numel(), k=k)
            return fused
        scored, _ = SCORES[how.score]
        with torch.no_grad():
            scores = scored(x.detach())
        if not self.exact and numpy_kwta.serves(x):
            kept = numpy_kwta.kwta(x, scores, first, k)
            if kept is not None:
                return kept
        return torch.where(_mask(scores, first, k, exact=self.exact), x, 0)


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
        kernels.kwta(one, kind="layer", units=1, k=1)
    except Exception as problem:  # noqa: BLE001 - Triton raises whatever it likes
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
    if not numpy_kwta.serves(groups):
        return groups.topk(k, dim=-1, sorted=False).values
    rest = groups.shape[-1] - k
    return torch.from_numpy(np.partition(groups.numpy(), rest, axis=-1)[..., rest:])


def _late(groups: Tensor, kth: Tensor, surplus: Tensor) -> Tensor:
    """True for so many of each row's units tied at the k-th largest value, those of last index."""
    tied = groups == kth.unsqueeze(-1)
    place = tied.cumsum(dim=-1, dtype=torch.int32)
    return tied & (place > place[..., -1:] - surplus.unsqueeze(-1))
