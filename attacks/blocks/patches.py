"""Square attack's moves in L2 and L1: the mass of one window goes into another.

Andriushchenko et al. (ECCV 2020), section 3.3, and in L1 as AutoAttack has it.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from bench.attacks.blocks.levels import into_l1
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.attacks.blocks.ball import Ball

#: A start is a grid of so many patches by so many.
GRID = 5
#: An L1 ball is taken so much smaller, that no rounding leads out of it.
INNER = 1 - 1e-6
TINY = 1e-12


class ShiftedPatches:
    """Moves of a row's perturbation in L2 or L1.

    Args:
        ball: of the rows; images are at least 5 pixels wide and high.
    """

    smallest, sized = 3, True

    def __init__(self, ball: Ball, _: Sequence[int] = ()) -> None:
        self.ball, self.norm = ball, ball.norm
        channels, height, width = ball.inputs.shape[1:]
        self.side = height // GRID
        self.edge = (height - GRID * self.side) // 2
        down, across = ((size - self.edge) // self.side for size in (height, width))
        self.first = (down, across, 1 + channels)
        """The shape of the random numbers of a start."""
        self.each = 5 + channels
        """How many random numbers a proposal needs."""

    def start(self, rows: Tensor, draws: Tensor) -> Tensor:
        """A patch in each place of the grid, upright or lying, with a sign for each channel."""
        inputs = self.ball.inputs[rows]
        down, across, _ = self.first
        patch = self._patches(self.side, draws[..., :1]) * _signs(draws[..., 1:])
        # (M, down, across, C, side, side) to (M, C, down * side, across * side)
        whole = patch.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)
        delta = torch.zeros_like(inputs)
        inside = slice(self.edge, self.edge + down * self.side)
        beside = slice(self.edge, self.edge + across * self.side)
        delta[:, :, inside, beside] = whole
        return self._reached(rows, inputs, delta)

    def planned(self, _: Tensor, draws: Tensor, sides: Tensor) -> Tensor:
        """What proposals are: random numbers, and behind them their side; float32 (M, B, K)."""
        return torch.cat([draws, sides[..., None].float()], dim=2)

    def moved(self, rows: Tensor, x: Tensor, plans: Tensor, among: Sequence[int]) -> Tensor:
        """The next proposals; windows of each size for themselves.

        Args:
            rows: int64 (M,).
            x: the points that are moved, (M, C, H, W).
            plans: what the proposals are, (M, K).
            among: all that the sides may be.
        """
        draws, sides = plans[:, :-1], plans[:, -1]
        inputs, radius = self.ball.inputs[rows], self.ball.radius[rows]
        delta = x - inputs
        if len(among) == 1:
            return self._reached(rows, inputs, self._shifted(delta, radius, draws, among[0]))
        for side in among:
            (which,) = torch.where(sides == side)
            delta[which] = self._shifted(delta[which], radius[which], draws[which], side)
        return self._reached(rows, inputs, delta)

    def _shifted(self, delta: Tensor, radius: Tensor, draws: Tensor, side: int) -> Tensor:
        """The mass of a second window, and what the ball has left, go into the first."""
        channels = delta.shape[1]
        one = _window(draws[:, 0], draws[:, 1], side, delta)
        other = _window(draws[:, 2], draws[:, 3], side, delta)
        both = torch.zeros_like(delta, dtype=torch.bool)
        both[other], both[one] = True, True
        spare = self._spare(delta, radius) / channels
        mass = self._joined(spare, self._size(delta * both))
        patch = self._patches(side, draws[:, 4:5]) * _signs(draws[:, 5:])
        before = delta[one].reshape(patch.shape)
        patch = patch + before / (TINY + self._size(before))
        patch = patch / (TINY + self._size(patch)) * mass
        delta = delta.clone()
        delta[other] = 0.0
        delta[one] = patch.reshape(delta[one].shape)
        return delta

    def _size(self, x: Tensor) -> Tensor:
        """Of each channel."""
        if self.norm is Norm.L2:
            return x.square().sum(dim=(-2, -1), keepdim=True).sqrt()
        return x.abs().sum(dim=(-2, -1), keepdim=True)

    def _spare(self, delta: Tensor, radius: Tensor) -> Tensor:
        """What the ball has left, in L2 squared: (M, 1, 1, 1)."""
        sizes = self._size(delta)
        if self.norm is Norm.L2:
            return (radius.square() - sizes.square().sum(dim=1, keepdim=True)).clamp(min=0)
        return (radius - sizes.sum(dim=1, keepdim=True)).clamp(min=0)

    def _joined(self, spare: Tensor, sizes: Tensor) -> Tensor:
        """The size of the new window of each channel."""
        if self.norm is Norm.L2:
            return (spare + sizes.square()).sqrt()
        return (spare + sizes) * sizes.shape[1]  # the projection takes off what is too much

    def _reached(self, rows: Tensor, inputs: Tensor, delta: Tensor) -> Tensor:
        """The point on the border of the ball in this direction, within the box."""
        if self.norm is Norm.L1:
            return into_l1(inputs, inputs + delta, self.ball.radii[rows].float() * INNER)
        size = delta.flatten(1).square().sum(dim=1).sqrt() + TINY
        scale = self.ball.radius[rows] / size.reshape(-1, 1, 1, 1)
        return (inputs + scale * delta).clamp(0, 1)

    def _patches(self, side: int, draws: Tensor) -> Tensor:
        """(..., 1, side, side): lying where a number is beyond a half."""
        upright = self._pattern(side)
        lying = draws[..., None, None] > 0.5
        return torch.where(lying, upright.T, upright)

    @functools.lru_cache(maxsize=64)  # noqa: B019 - a few sizes, for as long as the search
    def _pattern(self, side: int) -> Tensor:
        """Two opposite hills, one above the other: equation 2 of the paper; of size 1."""
        upper = self._hill(side // 2, side)
        pattern = torch.cat([upper, -self._hill(side - side // 2, side)])
        return (pattern / self._size(pattern)).to(self.ball.inputs.device)

    def _hill(self, height: int, width: int) -> Tensor:
        """Rings around the middle that fall off outwards, of size 1."""
        rings = max(height // 2 + 1, width // 2 + 1)
        power = 2 if self.norm is Norm.L2 else 4
        falls = torch.arange(1, rings + 1).float().pow(-power)
        above = falls.flip(0).cumsum(0).flip(0)  # of all rings at least so wide
        rows, columns = torch.arange(height), torch.arange(width)
        ring = torch.maximum(
            (rows - height // 2).abs()[:, None], (columns - width // 2).abs()[None]
        )
        hill = above[ring]
        return hill / self._size(hill) if hill.numel() else hill


def _window(down: Tensor, across: Tensor, side: int, like: Tensor) -> tuple[Tensor, ...]:
    """Index of a window of this side in each of (M, C, H, W): (M, C, side, side)."""
    count, channels, height, width = like.shape
    span = torch.arange(side, device=like.device)
    top = (down * (height - side + 1)).long()
    left = (across * (width - side + 1)).long()
    return (
        torch.arange(count, device=like.device).reshape(-1, 1, 1, 1),
        torch.arange(channels, device=like.device).reshape(1, -1, 1, 1),
        (top[:, None] + span).reshape(-1, 1, side, 1),
        (left[:, None] + span).reshape(-1, 1, 1, side),
    )


def _signs(draws: Tensor) -> Tensor:
    """(..., C) to (..., C, 1, 1) of -1 and 1."""
    return torch.where(draws < 0.5, -1.0, 1.0)[..., None, None]
