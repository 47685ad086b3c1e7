"""Layers whose gradient is not their slope, and a backward pass by slopes that are measured.

A layer that rounds has no gradient and rises all the same; one that takes the rest after rounding
has the gradient 1 and does not rise at all. What such a layer answers near its input tells how each
of its units rises: by differences over a small distance, a diagonal of slopes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

#: The distances of the differences, in standard deviations of what a layer gets.
DISTANCES = (0.03, 0.06, 0.12, 0.24)
#: A layer's slopes and gradients differ by so much of the larger of them, summed over its units,
#: where it does not rise as its gradient says.
APART = 0.5


class _BySlope(torch.autograd.Function):
    """The values that a layer answered; the gradient is the incoming one times its slopes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, out: Tensor, slopes: Tensor) -> Tensor:
        ctx.save_for_backward(slopes)
        return out.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return gradients[0] * slopes, None, None


def by_slopes(layer: nn.Module, x: Tensor, out: Tensor) -> Tensor:
    """What a layer answered, with a gradient by its slopes in the place of its own.

    Args:
        layer: asked eight times more.
        x: what it got, (N, ...).
        out: what it answered, same shape.
    """
    found: Tensor = _BySlope.apply(x, out.detach(), slopes(layer, x.detach()))
    return found


def slopes(layer: nn.Module, x: Tensor) -> Tensor:
    """By how much each unit of a layer rises with its own input, by central differences.

    Args:
        layer: from (N, ...) to the same shape.
        x: (N, ...).

    Returns:
        The mean over `DISTANCES`, shape of `x`.
    """
    total = torch.zeros_like(x)
    for number, distance in enumerate(DISTANCES):
        signs = _signs(x, number)
        step = distance * _spread(x)
        with torch.no_grad():
            rise = layer(x + step * signs) - layer(x - step * signs)
        total += rise * signs / (2 * step)
    return total / len(DISTANCES)


def misleads(layer: nn.Module, x: Tensor) -> bool:
    """Whether a layer does not rise as its gradient says; never of one that raises or is random.

    Both diagonals are taken along the same signs, and summed: units that differ by chance, as those
    at the bend of a ReLU, weigh nothing.

    Args:
        layer: from (N, ...) to the same shape.
        x: (N, ...).
    """
    try:
        with torch.no_grad():
            if not torch.equal(layer(x), layer(x)):
                return False
        risen = float(slopes(layer, x).double().sum())
        told = float(_told(layer, x).double().sum())
    except Exception:  # noqa: BLE001 - a layer may want what only its model gives it
        return False
    return abs(risen - told) > APART * max(abs(risen), abs(told))


def _told(layer: nn.Module, x: Tensor) -> Tensor:
    """The diagonal of slopes that a layer's gradient tells; 0 where there is none."""
    total = torch.zeros_like(x)
    for number in range(len(DISTANCES)):
        signs = _signs(x, number)
        point = x.clone().requires_grad_()
        with torch.enable_grad():
            out = layer(point)
            if not out.requires_grad:
                continue
            (told,) = torch.autograd.grad((out * signs).sum(), point, allow_unused=True)
        if told is not None:
            total += told * signs
    return total / len(DISTANCES)


def _signs(x: Tensor, number: int) -> Tensor:
    """The same for every example, whatever its batch: +1 and -1, (1, ...)."""
    generator = torch.Generator().manual_seed(number)
    drawn = torch.rand((1, *x.shape[1:]), generator=generator)
    return torch.where(drawn < 0.5, -1.0, 1.0).to(x)


def _spread(x: Tensor) -> Tensor:
    """The standard deviation of each example's units, (N, 1, ...)."""
    spread = x.flatten(1).std(dim=1, correction=0).clamp(min=1e-12)
    return spread.reshape(-1, *[1] * (x.ndim - 1))
