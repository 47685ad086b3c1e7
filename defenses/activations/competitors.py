"""Activations that k-WTA's authors compare it with (arXiv 1905.10510).

LWTA and max-pooling, in which small groups of channels compete, and the broken ReLU.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.defenses.activations.kinds import check_group, check_height
from bench.defenses.activations.smooth import Competition, WinnersTakeAll, smoothed
from bench.errors import ModelError


class _Grouped(WinnersTakeAll):
    """Units that compete in groups of neighbouring channels.

    Any floating dtype of shape (N, C, ...), C a multiple of the group size; dtype and shape are
    kept. Group i is the channels (features of a linear layer) i·group to (i + 1)·group − 1, and
    they compete at each position on their own. Of equal largest members the first wins. NaN counts
    as largest, so that it is passed on and not hidden.

    Args:
        group: how many channels compete, at least 2.

    Raises:
        UsageError: group is less than 2.
    """

    def __init__(self, group: int = 2) -> None:
        super().__init__()
        check_group(group)
        self.group = group

    def extra_repr(self) -> str:
        """The parameter, as torch prints it."""
        return f"group={self.group}"

    def grouped(self, x: Tensor) -> Tensor:
        """From (N, C, ...) to (N, C / group, group, ...).

        Raises:
            ModelError: `x` has no channels, or they do not make whole groups.
        """
        if x.ndim < 2:
            raise ModelError(f"channels compete in inputs (N, C, ...); got shape {tuple(x.shape)}")
        if x.shape[1] % self.group or not x.shape[1]:
            raise ModelError(
                f"{x.shape[1]} channels do not make whole groups of {self.group}; "
                "choose a group size that divides the width of every layer, or change that width"
            )
        return x.reshape(len(x), x.shape[1] // self.group, self.group, *x.shape[2:])

    def winners(self, x: Tensor) -> Tensor:
        """The first largest of each group, and 0 in the place of the others: shape of `x`.

        Its gradient is as smooth as it was told to be.

        Raises:
            ModelError: `x` has no channels, or they do not make whole groups.
        """
        groups = self.grouped(x)
        with torch.no_grad():
            members = torch.arange(self.group, device=x.device)
            members = members.reshape(-1, *[1] * (x.ndim - 2))
            mask = groups.max(dim=2, keepdim=True).indices == members
        chosen = torch.where(mask, groups, 0).flatten(1, 2)
        smooth = self.smoothness(x)
        if smooth is None:
            return chosen
        return smoothed(x, chosen, Competition(neighbours=self.group), smooth)


class LWTA(_Grouped):
    """Local winners take all (Srivastava et al., "Compete to Compute", NeurIPS 2013).

    The largest of each group keeps its value, also a negative one, and the others become zero:
    y_i = x_i where i is the first largest of its group, else 0. The gradient is the incoming one on
    winners and zero elsewhere.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it.

        Raises:
            ModelError: `x` has no channels, or they do not make whole groups.
        """
        return self.winners(x)


class MaxPoolActivation(_Grouped):
    """The maximum of each group of channels in the place of all its members.

    The max-pooling competitor in the comparison of k-WTA's authors, which is maxout (Goodfellow et
    al., ICML 2013) over channels. Theirs leaves one unit of a group; here the layers have fixed
    widths, so y_i = max of i's group for each i. What is linear in y sees maxout whose members
    share one outgoing weight, the sum of theirs.

    The gradient of a maximum is the sum of those that come in on its group; all of it goes to the
    first largest member.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Apply it.

        Raises:
            ModelError: `x` has no channels, or they do not make whole groups.
        """
        groups = self.grouped(x)
        if self.smoothness(x) is None:
            # Not amax, whose gradient is shared among equal members.
            largest = groups.max(dim=2, keepdim=True).values
        else:
            largest = self.grouped(self.winners(x)).sum(dim=2, keepdim=True)
        return largest.expand_as(groups).flatten(1, 2)


class BrokenReLU(nn.Module):
    """Keep what is greater than zero and set all else to a negative constant.

    x where x > 0, −height elsewhere, zero included: `breakReLU` of the authors' code, by which they
    tried discontinuity alone. The gradient is the incoming one where x > 0 and zero elsewhere,
    blind to the jump. With height 0 it is ReLU. NaN stays NaN.

    Args:
        height: of the jump at zero, finite and not negative; the authors' default is 5.

    Raises:
        UsageError: height is negative or not finite.
    """

    def __init__(self, height: float = 5.0) -> None:
        super().__init__()
        check_height(height)
        self.height = height

    def extra_repr(self) -> str:
        """The parameter, as torch prints it."""
        return f"height={self.height}"

    def forward(self, x: Tensor) -> Tensor:
        """Apply it to each unit on its own: any floating dtype and shape, both kept."""
        return functional.threshold(x, 0.0, -self.height)
