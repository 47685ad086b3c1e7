"""A smooth backward pass for layers in which the largest win; what they answer stays, bit for bit.

Which units win changes within small distances of an input, and a gradient that takes the winners'
choice for constant does not know of it. Here a unit passes the gradient by how close its score is
to the threshold between winners and losers, and the threshold moves with the scores, as it does in
the model: that second term, the derivative of the choice itself, is what shows the way.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self, runtime_checkable

import torch
from torch import nn

from bench.defenses.activations import numpy_rows, numpy_smooth
from bench.defenses.activations.numpy_rows import is_transformed, lies_in_channels_last

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: What a descent draws: both numbers of its `Smoothness`, the first one on a logarithmic scale.
TAU, JUMP = (0.015, 0.08), (0.5, 1.0)


class Smoothness(NamedTuple):
    """How smooth a backward pass is."""

    tau: float = 0.03
    """Width of the threshold, in standard deviations of the scores that compete."""
    jump: float = 1.0
    """The share of the derivative of the choice itself: 0 leaves it out, 1 takes it whole."""

    @classmethod
    def drawn(cls, seed: int, number: int) -> Self:
        """That of the descent of this number, whatever the batch."""
        digest = hashlib.sha256(f"{seed} smoothness {number}".encode()).digest()
        a, b = (int.from_bytes(digest[i : i + 4], "big") / 2**32 for i in (0, 4))
        return cls(TAU[0] * (TAU[1] / TAU[0]) ** a, JUMP[0] + b * (JUMP[1] - JUMP[0]))


@runtime_checkable
class Softenable(Protocol):
    """A layer whose backward pass is as smooth as it was last told to be."""

    def soften(self, tau: float, jump: float) -> None:
        """Set both numbers of `Smoothness` for the passes to come; what it answers stays."""


def soften(model: nn.Module, smooth: Smoothness) -> bool:
    """Set how smooth the backward pass of a model is, in each of its layers that can be told.

    Returns:
        Whether there is any.
    """
    layers = [module for module in model.modules() if isinstance(module, Softenable)]
    for layer in layers:
        layer.soften(*smooth)
    return bool(layers)


class Competition(NamedTuple):
    """How the units of a layer compete."""

    score: str = "value"
    """A key of `SCORES`."""
    channels: bool = False
    """Whether each channel is a group; else all units of an example are one."""
    neighbours: int = 0
    """If positive, so many neighbouring channels are a group instead, at each position."""

    @property
    def whole(self) -> bool:
        """Whether all units of an example are one group, of which the order is no matter."""
        return not (self.channels or self.neighbours)

    def grouped(self, x: Tensor) -> Tensor:
        """From (N, ...) to (N, groups, M)."""
        if self.neighbours:
            x = x.flatten(2) if x.ndim > 2 else x[..., None]
            count, channels, places = x.shape
            sets = x.reshape(count, channels // self.neighbours, self.neighbours, places)
            return sets.transpose(2, 3).flatten(1, 2)
        return x.flatten(2) if self.channels else x.flatten(1).unsqueeze(1)

    def ungrouped(self, groups: Tensor, shape: torch.Size) -> Tensor:
        """From (N, groups, M) back to this shape."""
        if self.neighbours:
            sets, places = shape[1] // self.neighbours, shape[2:].numel()
            groups = groups.reshape(shape[0], sets, places, self.neighbours).transpose(2, 3)
        return groups.reshape(shape)

    def spread(self, scores: Tensor) -> Tensor:
        """The standard deviation by which widths are measured, of (N, groups, M): (N, ., 1).

        That of each group; a few neighbours have none that says much, and go by the example's. In
        float64, as `torch.std` computes it, which takes several times as long on a CPU.
        """
        among = scores.flatten(1).unsqueeze(1) if self.neighbours else scores
        precise = among.double()
        away = precise - precise.mean(dim=-1, keepdim=True)
        return (away * away).mean(dim=-1, keepdim=True).sqrt().to(scores.dtype)


#: By what units compete, and its derivative.
SCORES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor | float]]] = {
    "value": (lambda x: x, lambda _: 1.0),
    "magnitude": (torch.abs, torch.sign),
    "smallness": (lambda x: -x.abs(), lambda x: -x.sign()),
}


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Remember what the backward pass needs."""
    x, out, ctx.how, ctx.smooth = inputs
    ctx.save_for_backward(x, out)


class _SmoothChoice(torch.autograd.Function):
    """The values that a layer chose, and a smooth gradient of its choice.

    With scores s of a group, the threshold t between winners and losers, T = tau times the standard
    deviation of s, c = sigmoid((s − t) / T), w = c (1 − c) / T and p = g x w for the incoming
    gradient g, the gradient is g c + jump · ds/dx · (p − w Σp / Σw).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, how: Competition, smooth: Smoothness) -> Tensor:
        _keep(ctx, (x, out, how, smooth), out)
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        how, (tau, jump) = ctx.how, ctx.smooth
        (x, out), (g,) = ctx.saved_tensors, gradients
        shape = x.shape
        plain = not (how.neighbours or torch.is_grad_enabled() or is_transformed())
        if plain and numpy_rows.serves(x):
            units = shape[2 if how.channels else 1 :].numel()
            last = how.whole and lies_in_channels_last(x)
            values, won, back = (numpy_rows.rows_of(each, units, last) for each in (x, out, g))
            found = numpy_smooth.gradient(values, won, back, score=how.score, tau=tau, jump=jump)
            return numpy_rows.tensor_of(found, shape, last), None, None, None
        x, out, g = (how.grouped(each) for each in (x, out, g))
        scored, slope = SCORES[how.score]
        scores = scored(x)
        width = (tau * how.spread(scores)).clamp(min=1e-12)
        chosen = torch.sigmoid((scores - threshold(scores, nonzero(out))) / width)
        weight = chosen * (1 - chosen) / width
        push = g * x * weight
        mean = push.sum(dim=-1, keepdim=True) / weight.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        gradient = g * chosen + jump * slope(x) * (push - weight * mean)
        return how.ungrouped(gradient, shape), None, None, None


class _Transformed(_SmoothChoice):
    """The same as `torch.func` wants it, which takes 50 µs longer for each call."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, out: Tensor, how: Competition, smooth: Smoothness) -> Tensor:  # type: ignore[override]
        return out.clone()

    setup_context = staticmethod(_keep)


def smoothed(x: Tensor, out: Tensor, how: Competition, smooth: Smoothness) -> Tensor:
    """What a layer answered, with a smooth gradient of its choice in the place of its own.

    Args:
        x: what it got, (N, ...), any floating dtype.
        out: what it answered: the winners' values and 0, same shape.
        how: its units compete.
        smooth: the backward pass.

    Returns:
        The values, dtype and memory format of `out`.
    """
    if how.whole and lies_in_channels_last(x) and not numpy_rows.serves(x):
        return smoothed(by_place(x), by_place(out), how, smooth).permute(0, 3, 1, 2)
    function = _Transformed if is_transformed() else _SmoothChoice
    chosen: Tensor = function.apply(x, out.detach(), how, smooth)
    return chosen


def by_place(x: Tensor) -> Tensor:
    """A view (N, H, W, C) of (N, C, H, W), which flattens without a copy if it lies so."""
    return x.permute(0, 2, 3, 1)


class WinnersTakeAll(nn.Module):
    """A layer in which units compete: its own gradient takes the winners for constant.

    Once `soften` was called, a smooth one takes its place; values stay, bit for bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self._smooth: Smoothness | None = None

    def soften(self, tau: float, jump: float) -> None:
        """See `Softenable`."""
        self._smooth = Smoothness(tau, jump)

    def smoothness(self, x: Tensor) -> Smoothness | None:
        """Of the backward pass of this input; None where it is the layer's own."""
        return self._smooth if torch.is_grad_enabled() and x.requires_grad else None


def nonzero(out: Tensor) -> Tensor:
    """1 for each value that is not 0, else 0, in its dtype: what a CPU has instructions for.

    Comparisons and selections by them take it several times as long as arithmetic does.
    """
    return out.sign().abs()


def threshold(scores: Tensor, kept: Tensor) -> Tensor:
    """Midway between the lowest score that won and the highest that lost.

    Args:
        scores: (N, groups, M).
        kept: 1 for those that won, 0 for others; shape and dtype of the scores.

    Returns:
        (N, groups, 1); the lowest score where all won, 0 where none did.
    """
    low, high = lowest(scores, 1 - kept), highest(scores, kept)
    none = torch.finfo(scores.dtype).max / 2
    return torch.where(low > none, 0, torch.where(high < -none, low, (low + high) / 2))


def lowest(scores: Tensor, without: Tensor) -> Tensor:
    """The lowest score of each group without those marked by 1, not by 0: (N, groups, 1).

    More than half of what its dtype holds where none is left.
    """
    far = torch.finfo(scores.dtype).max
    return torch.add(scores, without, alpha=far).amin(dim=-1, keepdim=True)


def highest(scores: Tensor, without: Tensor) -> Tensor:
    """The highest in the same way; as far below 0 where none is left."""
    far = torch.finfo(scores.dtype).max
    return torch.sub(scores, without, alpha=far).amax(dim=-1, keepdim=True)
