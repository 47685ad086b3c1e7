"""Finds a model's layers whose gradient misleads while it is asked, and mends their backward pass.

Winner-take-all layers get a smooth one; what else does not rise as its gradient says, its slopes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import torch

from bench.attacks.blocks.slopes import by_slopes, misleads
from bench.defenses.activations.smooth import (
    SCORES,
    Competition,
    Smoothness,
    highest,
    lowest,
    nonzero,
    smoothed,
    threshold,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn

#: A threshold nearer to 0 than this share of the scores' standard deviation is that of a ReLU.
ZERO = 0.05
#: Of the groups of a layer, the share in which equally many units have to win.
ALIKE = 0.9


class SmoothBackward:
    """Finds layers whose gradient misleads while a model is asked, and mends their backward pass.

    A layer takes its winners where its module has no children and no weights, and answers each unit
    of its input as it is or with 0, equally many in each group but for ties, and keeps none of a
    lower score than one that it drops. A group is an example, a channel, or some neighbouring
    channels at one position (LWTA). Any other such layer that answers in the shape of its input and
    does not rise as its gradient says is followed by its slopes (`bench.attacks.blocks.slopes`).
    The model itself is left as it was when the context ends.

    Args:
        model: any.
    """

    def __init__(self, model: nn.Module) -> None:
        self.smooth: Smoothness | None = None
        """Of the next backward passes; None leaves them as they are."""
        self.found: dict[nn.Module, Competition | None] = {}
        """Layers that were looked at, and how their units compete, if they do."""
        self.jumping: set[nn.Module] = set()
        """Those of the others that are followed by their slopes."""
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
        return _counted(module for module, how in self.found.items() if how)

    @property
    def jumps(self) -> list[str]:
        """The kinds of layers that are followed by their slopes, in the same way."""
        return _counted(self.jumping)

    def _answered(self, module: nn.Module, given: tuple[Any, ...], out: Any) -> Tensor | None:
        """Put a smooth gradient in the place of the layer's own."""
        x: Any = given[0] if len(given) == 1 else None
        if self.smooth is None or not _alike(x, out) or not torch.is_grad_enabled():
            return None
        if module not in self.found:
            how = self.found[module] = recognise(x.detach(), out.detach())
            if how is None and misleads(module, x.detach()):
                self.jumping.add(module)
        how = self.found[module]
        if not x.requires_grad:
            return None
        if module in self.jumping:
            return by_slopes(module, x, out)
        return None if how is None else smoothed(x, out, how, self.smooth)


def _counted(modules: Iterable[nn.Module]) -> list[str]:
    names = [type(module).__name__ for module in modules]
    return [f"{names.count(name)} {name}" for name in sorted(set(names))]


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
    for how in _ways(x, out):
        scored, _ = SCORES[how.score]
        scores, kept = scored(how.grouped(x)), nonzero(how.grouped(out))
        some = _equally_many(scores, kept) >= ALIKE
        ordered = lowest(scores, 1 - kept) >= highest(scores, kept)
        far = threshold(scores, kept).abs() > ZERO * how.spread(scores)
        apart = bool(far.float().median())
        if some and bool(ordered.all()) and apart:
            return how
    return None


def _ways(x: Tensor, out: Tensor) -> list[Competition]:
    """How units could compete: in an example, a channel, or, one of a few, among neighbours."""
    ways = [Competition(score) for score in SCORES]
    if x.ndim > 2:
        ways += [Competition(score, channels=True) for score in SCORES]
    few = round(x.numel() / max(1, int((out != 0).sum())))
    if few > 1 and x.shape[1] > few and x.shape[1] % few == 0:
        ways.append(Competition(neighbours=few))
    return ways


def _equally_many(scores: Tensor, kept: Tensor) -> float:
    """The share of the groups in which the same number of units can have had to win.

    More of them win where units tie at the threshold, as those of a constant background do.
    """
    most = kept.long().sum(dim=-1).flatten()
    above = (scores > lowest(scores, 1 - kept)).sum(dim=-1).flatten()
    counts = torch.unique(most)
    counts = counts[(counts > 0) & (counts < scores.shape[-1])]
    if not len(counts):
        return 0.0
    possible = (above[:, None] < counts) & (counts <= most[:, None])
    return float(possible.float().mean(dim=0).max())
