"""Exact projections onto a ball or a hyperplane within the box: one sorted sum solves them all.

Each asks for the level at which a sum of ramps reaches what is needed: coordinates move until the
level, or until the box stops them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

#: Weights below this do not count, as in the published code of FAB.
FAINT = 1e-8


def level(ends: Tensor, slopes: Tensor, needed: Tensor) -> Tensor:
    """The smallest l >= 0 at which sum_i slopes_i * min(l, ends_i) reaches what is needed.

    Args:
        ends: at least 0, (M, K).
        slopes: (M, K); such that the sum never falls with l.
        needed: (M,).

    Returns:
        (M, 1); the largest end where even that is not enough.
    """
    ends, order = ends.sort(dim=1)
    slopes = slopes.gather(1, order)
    ahead = slopes.flip(1).cumsum(dim=1).flip(1)  # of all ramps that have not ended before
    start = torch.nn.functional.pad(ends[:, :-1], (1, 0))
    reached = ((ends - start) * ahead).cumsum(dim=1)
    enough = reached >= needed[:, None]
    place = enough.to(torch.uint8).argmax(dim=1, keepdim=True)  # the first
    short = (reached.gather(1, place) - needed[:, None]) / ahead.gather(1, place)
    found = (ends.gather(1, place) - short.nan_to_num(0.0)).clamp(min=0)
    found = torch.maximum(found, start.gather(1, place))
    return torch.where(enough.any(dim=1, keepdim=True), found, ends[:, -1:])


def into_l1(inputs: Tensor, x: Tensor, radii: Tensor) -> Tensor:
    """The nearest points of the L1 ball and the box (Croce and Hein, ICML 2021, proposition 2.1).

    Args:
        inputs: in [0, 1], (M, ...).
        x: same shape.
        radii: (M,).

    Returns:
        Shape of the inputs.
    """
    middle, delta = inputs.flatten(1), (x - inputs).flatten(1)
    size = delta.abs()
    room = torch.where(delta > 0, 1 - middle, middle)
    beyond = (size - room).clamp(min=0)  # until so much is taken off, the box holds it anyway
    needed = torch.minimum(size, room).sum(dim=1) - radii
    ends, ones = torch.cat([size, beyond], dim=1), torch.ones_like(size)
    off = level(ends, torch.cat([ones, -ones], dim=1), needed)
    off = torch.where(needed[:, None] > 0, off, 0)
    moved = torch.minimum((size - off).clamp(min=0), room) * delta.sign()
    return (middle + moved).clamp(0, 1).reshape(inputs.shape)


def onto_plane(norm: Norm, x: Tensor, weights: Tensor, needed: Tensor) -> Tensor:
    """The smallest step onto a hyperplane that stays in the box (Croce and Hein, ICML 2020).

    Args:
        norm: by which it is small.
        x: in [0, 1], (M, K).
        weights: normal of the hyperplane, (M, K).
        needed: by how much the product with the weights has to change, (M,).

    Returns:
        The step, (M, K); as far as the box lets it where that is not enough.
    """
    way = torch.where(needed < 0, -1.0, 1.0)[:, None] * weights
    needed, size = needed.abs(), weights.abs()
    if norm is not Norm.LINF:
        size = torch.where(size > FAINT, size, 0)
    room = torch.where(way > 0, 1 - x, x) * (size > 0)
    if norm is Norm.LINF:
        step = torch.minimum(level(room, size, needed), room)
    elif norm is Norm.L2:
        ends = torch.where(size > 0, room / size, 0)
        step = torch.minimum(level(ends, size.square(), needed) * size, room)
    else:
        step = _steepest_first(room, size, needed)
    return step * way.sign()


def _steepest_first(room: Tensor, size: Tensor, needed: Tensor) -> Tensor:
    """In L1 the coordinate with the largest weight moves first, as far as it can."""
    size, order = size.sort(dim=1, descending=True, stable=True)
    room = room.gather(1, order)
    gained = (size * room).cumsum(dim=1)
    before = torch.nn.functional.pad(gained[:, :-1], (1, 0))
    step = ((needed[:, None] - before) / size).nan_to_num(0.0, 0.0, 0.0)
    return torch.zeros_like(room).scatter(1, order, torch.minimum(step.clamp(min=0), room))
