"""Which units of k-WTA compete, and by what. Importing this does not import torch."""

from __future__ import annotations

from typing import Literal, get_args

#: `layer`, the paper's: all units of an example, by value. `channel`: the H·W units of each channel
#: among themselves, by value. `magnitude` and `channel-magnitude`: the same two, by |x|.
#: `smallest`: all units, those with the smallest |x| win.
Kind = Literal["layer", "channel", "magnitude", "channel-magnitude", "smallest"]

#: All of them.
KINDS: tuple[Kind, ...] = get_args(Kind)
