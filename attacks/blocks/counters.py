"""Random numbers of many rows at once, on the device where they are needed.

A generator draws one number after another, and of a row each there are as many as rows. Here the
n-th number of a row is a hash of the row's key and of n (Salmon et al., "Parallel random numbers:
as easy as 1, 2, 3", SC 2011), so that one pass draws for all of them, and the host never waits. The
hash is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), in the wrapping arithmetic of int64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

#: Of SplitMix64: what the state grows by, and shifts and factors that mix it; as int64.
GAMMA = 0x9E3779B97F4A7C15 - 2**64
MIXING = ((30, 0xBF58476D1CE4E5B9 - 2**64), (27, 0x94D049BB133111EB - 2**64), (31, 1))
#: A number in [0, 1) has so many bits: float32 keeps no more.
BITS = 24


class Counters:
    """A stream of random numbers for each row.

    Args:
        keys: of the rows, from 0 up to 2⁶³.
        device: where the numbers are drawn.
    """

    def __init__(self, keys: Sequence[int], device: torch.device) -> None:
        self._keys = torch.tensor(keys, dtype=torch.int64, device=device)
        self._drawn = torch.zeros_like(self._keys)

    def uniform(self, rows: Tensor, count: int) -> Tensor:
        """The next numbers in [0, 1) of these rows, float32 (M, count)."""
        return _share(self.bits(rows, count) >> (64 - BITS))

    def normal(self, rows: Tensor, count: int) -> Tensor:
        """The next standard normal numbers, float32 (M, count): Box and Muller (1958)."""
        bits = self.bits(rows, (count + 1) // 2)
        size = (-2 * (1 - _share(bits >> (64 - BITS))).log()).sqrt()
        angle = 2 * math.pi * _share(bits)
        return torch.cat([size * angle.cos(), size * angle.sin()], dim=1)[:, :count]

    def bits(self, rows: Tensor, count: int) -> Tensor:
        """The next 64 bits of these rows so many times, int64 (M, count).

        A row that is named twice draws twice.
        """
        ordered, order = rows.sort(stable=True)
        places = torch.arange(len(rows), device=rows.device)
        before = torch.searchsorted(ordered, ordered)  # where its row begins
        turn = torch.empty_like(rows).scatter_(0, order, places - before)
        start = self._drawn[rows] + count * turn
        self._drawn.index_add_(0, rows, torch.full_like(rows, count))
        number = start[:, None] + torch.arange(1, count + 1, device=rows.device)
        mixed = self._keys[rows][:, None] + GAMMA * number
        for shift, factor in MIXING:
            # Shifting right copies the sign bit; what it copied is masked away.
            mixed = (mixed ^ ((mixed >> shift) & ((1 << (64 - shift)) - 1))) * factor
        return mixed


def _share(bits: Tensor) -> Tensor:
    """The lowest bits as a number in [0, 1)."""
    return (bits & ((1 << BITS) - 1)).float() / (1 << BITS)
