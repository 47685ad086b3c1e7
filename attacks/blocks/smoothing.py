"""A smooth backward pass for layers in which the largest win; what they answer stays, bit for bit.

Which units win changes within small distances of an input, and a gradient that takes the winners'
choice for constant does not know of it. Here a unit passes the gradient by how close its score is
to the threshold between winners and losers, and the threshold moves with the scores, as it does in
the model: that second term, the derivative of the choice itself, is what shows the way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

#: A threshold nearer to 0 than this share of the scores' standard deviation is that of a ReLU.
ZERO = 0.05
#: Of the groups of a layer, the share in which equally many units have to win.
ALIKE = 0.9


class Smoothness(NamedTuple):
    """How smooth a backward pass is."""

    tau: float = 0.03
    """Width of the threshold, in standard deviations of the scores that compete."""
    jump: float = 1.0
    """The share of the derivative of the choice itself: 0 leaves it out, 1 takes it whole."""


class Competition(NamedTuple):
    """How the units of a layer compete."""

    score: str
    """A key of `SCORES`."""
    channels: bool
    """Whether each channel is a group; else all units of an example are one."""

    def grouped(self, x: Tensor) -> Tensor:
        """From (N, ...) to (N, groups, M)."""
        if self.channels:
            return x.flatten(2)
        return x.flatten(1)[:, None]


#: By what units compete, and its derivative.
SCORES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "value": (lambda x: x, torch.ones_like),
    "magnitude": (torch.abs, torch.sign),
    "smallness": (lambda x: -x.abs(), lambda x: -x.sign()),
}


class _SmoothChoice(torch.autograd.Function):
    """The values that a layer chose, and a smooth gradient of its choice.

    With scores s of a group, the threshold t between winners and losers, T = tau times the standard
    deviation of s, c = sigmoid((s − t) / T), w = c (1 − c) / T and p = g x w for the incoming
    gradient g, the gradient is g c + jump · ds/dx · (p − w Σp / Σw).
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, out: Tensor, threshold: Tensor, score: str, smooth: Smoothness
    ) -> Tensor:
        """`x` and `out` are (N, groups, M), `threshold` (N, groups, 1)."""
        ctx.save_for_backward(x, threshold)
        ctx.score, ctx.smooth = score, smooth
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        """See the class."""
        (g,) = gradients
        x, threshold = ctx.saved_tensors
        (scored, slope), (tau, jump) = SCORES[ctx.score], ctx.smooth
        scores = scored(x)
        width = (tau * scores.std(dim=-1, keepdim=True, correction=0)).clamp(min=1e-12)
        chosen = torch.sigmoid((scores - threshold) / width)
        weight = chosen * (1 - chosen) / width
        push = g * x * weight
        mean = push.sum(dim=-1, keepdim=True) / weight.sum(dim=-1, keepdim=True).clamp(min=1e-12)
        return g * chosen + jump * slope(x) * (push - weight * mean), None, None, None, None


class SmoothBackward:
    """Finds a model's winner-take-all layers while it is asked, and smooths their backward pass.

    A layer is one of those where its module has no children and no weights, and answers each unit
    of its input as it is or with 0, equally many in each group but for ties, and keeps none of a
    lower score than one that it drops. The model itself is left as it was when the context ends.

    Args:
        model: any.
    """

    def __init__(self, model: nn.Module) -> None:
        self.smooth: Smoothness | None = None
        """Of the next backward passes; None leaves them as they are."""
        self.found: dict[nn.Module, Competition | None] = {}
        """Layers that were looked at, and how their units compete, if they do."""
        self._model = model
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        for module in self._model.modules():
            leaf = not any(True for _ in module.children())
            bare = not [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if leaf and bare and not isinstance(module, torch.jit.ScriptModule):
                self._hooks.append(module.register_forward_hook(self._answered))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    @property
    def layers(self) -> list[str]:
        """The kinds of layers that were found, with their number: `2 KWTA`."""
        names = [type(module).__name__ for module, how in self.found.items() if how]
        return [f"{names.count(name)} {name}" for name in sorted(set(names))]

    def _answered(self, module: nn.Module, given: tuple[Any, ...], out: Any) -> Tensor | None:
        """Put a smooth gradient in the place of the layer's own."""
        x: Any = given[0] if len(given) == 1 else None
        if self.smooth is None or not _alike(x, out) or not torch.is_grad_enabled():
            return None
        if module not in self.found:
            self.found[module] = recognise(x.detach(), out.detach())
        how = self.found[module]
        if how is None or not x.requires_grad:
            return None
        groups, answers = how.grouped(x), how.grouped(out.detach())
        threshold = _threshold(SCORES[how.score][0](groups.detach()), answers != 0)
        smooth: Tensor = _SmoothChoice.apply(groups, answers, threshold, how.score, self.smooth)
        return smooth.reshape(out.shape)


def _alike(x: Any, out: Any) -> bool:
    """Whether both are floating tensors of one shape, with more than one unit an example."""
    tensors = isinstance(x, torch.Tensor) and isinstance(out, torch.Tensor)
    return tensors and x.shape == out.shape and x.is_floating_point() and x[0].numel() > 1


def recognise(x: Tensor, out: Tensor) -> Competition | None:
    """How units compete in a layer, from what it got and answered; None where they do not.

    Args:
        x: (N, ...).
        out: same shape.
    """
    dropped = (out == 0) & (x != 0)
    if not bool((dropped | (out == x)).all()) or not bool(dropped.any()):
        return None
    for channels in (False, True) if x.ndim > 2 else (False,):
        for score, (scored, _) in SCORES.items():
            how = Competition(score, channels)
            scores, kept = scored(how.grouped(x)), how.grouped(out) != 0
            some = _equally_many(scores, kept) >= ALIKE
            ordered = _lowest(scores, kept) >= _highest(scores, ~kept)
            spread = scores.std(dim=-1, keepdim=True, correction=0)
            threshold = _threshold(scores, kept)
            apart = bool((threshold.abs() > ZERO * spread).float().median())
            if some and bool(ordered.all()) and apart:
                return how
    return None


def _equally_many(scores: Tensor, kept: Tensor) -> float:
    """The share of the groups in which the same number of units can have had to win.

    More of them win where units tie at the threshold, as those of a constant background do.
    """
    most = kept.sum(dim=-1).flatten()
    above = (scores > _lowest(scores, kept)).sum(dim=-1).flatten()
    counts = torch.unique(most)
    counts = counts[(counts > 0) & (counts < scores.shape[-1])]
    if not len(counts):
        return 0.0
    possible = (above[:, None] < counts) & (counts <= most[:, None])
    return float(possible.float().mean(dim=0).max())


def _threshold(scores: Tensor, kept: Tensor) -> Tensor:
    """Midway between the lowest score that won and the highest that lost, (N, groups, 1)."""
    low, high = _lowest(scores, kept), _highest(scores, ~kept)
    middle = (low + high) / 2
    return torch.where(middle.isfinite(), middle, torch.where(low.isfinite(), low, 0))


def _lowest(scores: Tensor, among: Tensor) -> Tensor:
    return scores.masked_fill(~among, torch.inf).amin(dim=-1, keepdim=True)


def _highest(scores: Tensor, among: Tensor) -> Tensor:
    return scores.masked_fill(~among, -torch.inf).amax(dim=-1, keepdim=True)
