"""Which units of k-WTA compete, and what activations and their defenses check alike.

Importing this does not import torch.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, get_args

from bench.errors import ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

#: `layer`, the paper's: all units of an example, by value. `channel`: the H·W units of each channel
#: among themselves, by value. `magnitude` and `channel-magnitude`: the same two, by |x|.
#: `smallest`: all units, those with the smallest |x| win.
Kind = Literal["layer", "channel", "magnitude", "channel-magnitude", "smallest"]

#: All of them.
KINDS: tuple[Kind, ...] = get_args(Kind)


def check_gamma(gamma: float) -> None:
    """Refuse what is no share of winners.

    Raises:
        UsageError: it is not in (0, 1].
    """
    if not 0 < gamma <= 1:
        raise UsageError(f"gamma has to be greater than 0 and at most 1 (got {gamma})")


def check_group(group: int) -> None:
    """Refuse a group in which nothing competes.

    Raises:
        UsageError: it has fewer than two members.
    """
    if group < 2:
        raise UsageError(f"group has to be at least 2, for nothing competes in less (got {group})")


def check_height(height: float) -> None:
    """Refuse what is no height of a jump.

    Raises:
        UsageError: it is negative or not finite.
    """
    if not 0 <= height < math.inf:
        raise UsageError(f"height has to be finite and at least 0 (got {height})")


def refuse_nan(found: Tensor) -> None:
    """Refuse what has NaN.

    Args:
        found: of booleans, any shape; true where there is NaN.

    Raises:
        ModelError: there is NaN.
    """
    if bool(found.any()):
        raise ModelError(
            "k-WTA got NaN, among which there is no k-th largest value; "
            "look for NaN in the weights or for a layer before it that overflows"
        )
