"""Which units of k-WTA compete, and by what. Importing this does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from bench.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

#: `layer`, the paper's: all units of an example, by value. `channel`: the H·W units of each channel
#: among themselves, by value. `magnitude` and `channel-magnitude`: the same two, by |x|.
#: `smallest`: all units, those with the smallest |x| win.
Kind = Literal["layer", "channel", "magnitude", "channel-magnitude", "smallest"]


#: All of them.
KINDS: tuple[Kind, ...] = get_args(Kind)


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
