"""k-Winners-Take-All (Xiao, Zhong, Zheng, ICLR 2020, arXiv 1905.10510)."""

from __future__ import annotations

import importlib
import warnings
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from bench.defenses.activations import numpy_kwta
from bench.defenses.activations.kinds import KINDS, Kind, check_gamma, refuse_nan
from bench.defenses.activations.numpy_rows import is_transformed, lies_in_channels_last, serves
from bench.defenses.activations.smooth import (
    SCORES,
    Competition,
    WinnersTakeAll,
    by_place,
    smoothed,
)
from bench.errors import ModelError, UsageError, is_out_of_memory

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
            ModelError: `x` has no unit to choose from, or contains NaN, which has no order. On a
                GPU its group becomes NaN instead: to ask makes the host wait, and logits tell. So
                it does within `torch.func.grad`, `vmap` and the like, where nobody can ask.
        """
        if x.ndim < 2 or 0 in x.shape[1:]:
            raise ModelError(f"k-WTA needs inputs (N, units, ...); got shape {tuple(x.shape)}")
        how = self.competition(x)
        if how.whole and not self.exact and _is_slow_in_channels_last(x):
            return self.forward(by_place(x)).permute(0, 3, 1, 2)
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
        hidden = is_transformed()
        kernels = None if self.exact or hidden else _kernels(x, first)
        if kernels is not None:
            try:
                fused: Tensor = kernels.kwta(x, kind=self.kind, units=x.shape[first:].numel(), k=k)
            except Exception as problem:
                if is_out_of_memory(problem):
                    raise
                _fall_back(problem)
            else:
                return fused
        numpy = not hidden and serves(x)
        if not self.exact and numpy:
            kept = numpy_kwta.kwta(x, how.score, first, k)
            if kept is not None:
                return kept
        scored, _ = SCORES[how.score]
        with torch.no_grad():
            scores = scored(x.detach())
        kth = _kth(scores, first, k, numpy=numpy)
        mask, silent = scores >= kth, hidden or x.device.type != "cpu"
        if not silent:
            refuse_nan(kth.isnan())
        if self.exact:
            surplus = mask.flatten(first).sum(dim=-1, keepdim=True, dtype=torch.int32) - k
            if silent or bool((surplus > 0).any()):
                mask = mask & ~_late((scores == kth).flatten(first), surplus).reshape(mask.shape)
        return torch.where(mask, x, torch.where(kth.isnan(), kth, 0) if silent else 0)


def _is_slow_in_channels_last(x: Tensor) -> bool:
    """Whether torch would copy it, where numpy reads it as it lies."""
    return lies_in_channels_last(x) and not serves(x)


def _kernels(x: Tensor, first: int) -> ModuleType | None:
    """The Triton kernels, where they serve such an input: on a GPU, in the usual dtypes."""
    if not x.is_cuda or _fallen or not _ready():
        return None
    return _triton if _triton is not None and _triton.serves(x, first) else None


#: The kernels, once they are asked for: a CPU does without Triton.
_triton: ModuleType | None = None


def _ready() -> bool:
    """Import the kernels; whether that works. A compiler calls it, and does not look inside."""
    global _triton
    try:
        _triton = importlib.import_module("bench.defenses.activations.triton_kwta")
    except Exception as problem:  # noqa: BLE001 - Triton raises whatever it likes
        _fall_back(problem)
        return False
    return True


# What `torch.compiler.assume_constant_result` does, and imports the compiler for: two seconds of
# every process.
_ready._dynamo_marked_constant = True  # type: ignore[attr-defined]


#: Why the kernels are not used in this process any more.
_fallen: list[str] = []


def _fall_back(problem: Exception) -> None:
    """Do without the kernels from now on, and say so once.

    They want a C compiler, a driver that can be found, and a GPU that Triton knows; what is missing
    shows when the first one is compiled, as an error of any class.
    """
    _fallen.append(f"{type(problem).__name__}: {problem}")
    warnings.warn(
        f"k-WTA runs without its Triton kernels, slower, with the same results: {_fallen[0]}",
        RuntimeWarning,
        stacklevel=2,
    )


def _kth(scores: Tensor, first: int, k: int, *, numpy: bool) -> Tensor:
    """The k-th largest score of each group, to be compared with scores: (N, ..., 1, 1).

    A group lies along the dimensions from `first` on. NaN where there is one anywhere in it: it is
    taken for the largest value, and amin passes it on.
    """
    groups = scores.flatten(first)
    rest = groups.shape[-1] - k
    if numpy:
        largest = np.partition(groups.numpy(), rest, axis=-1)[..., rest:]
        kth = torch.from_numpy(largest).amin(dim=-1)
    else:
        kth = groups.topk(k, dim=-1, sorted=False).values.amin(dim=-1)
    return kth.reshape(kth.shape + (1,) * (scores.ndim - first))


def _late(tied: Tensor, surplus: Tensor) -> Tensor:
    """True for so many of each row's units tied at the k-th largest value, those of last index."""
    place = tied.cumsum(dim=-1, dtype=torch.int32)
    return tied & (place > place[..., -1:] - surplus.clamp(min=0))
