"""What defenses share that are models of a library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from bench.api import Defense
from bench.defenses.zoo.fitting import fit
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

Shape = tuple[int, int, int]


class Borrowed(Defense):
    """A model of a library behind its own preprocessing: `adapt` and a check are shared."""

    def adapt(self, contents: Sequence[Any], module: nn.Module) -> Any:
        """Under the names that the module has behind its preprocessing."""
        (content,) = contents
        return fit(content, module)

    def network(self, *, shape: Shape) -> str:
        """The library's name of the architecture."""
        return self.architecture

    @property
    def architecture(self) -> str:
        """The library's name of it."""
        raise NotImplementedError

    def check_classes(self, own: int, classes: int) -> None:
        """Refuse data with another number of classes than the weights have.

        Raises:
            UsageError: they differ.
        """
        if own != classes:
            raise UsageError(
                f"the weights of {self.name} tell {own} classes apart, and the data have "
                f"{classes}; name weights for these data with --checkpoint '{self.name}=PATH'"
            )


def identifier(name: str) -> str:
    """A library's name of a model, which must not become a path.

    Raises:
        UsageError: it has other characters than letters, digits, dots, hyphens and underscores.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UsageError(f"{name!r} has to be letters, digits, dots, hyphens and underscores")
    return name


def check_colour(name: str, shape: Shape) -> None:
    """Refuse images that are not in colour.

    Raises:
        UsageError: they have another number of channels than 3.
    """
    if shape[0] != 3:
        raise UsageError(f"{name} takes images in colour: 3 channels (got {shape[0]})")
