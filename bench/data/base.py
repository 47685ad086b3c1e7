"""What every data set offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from bench.api import Examples

Split = Literal["train", "test"]

#: The shapes (C, H, W) by which a data set read from files joins a family.
FAMILY_OF_SHAPE = {(1, 8, 8): "digits", (1, 28, 28): "mnist", (3, 32, 32): "cifar10"}


class Dataset(ABC):
    """Labelled images in a train and a test split, read when asked for."""

    name: str
    """As in tables; it holds no path of this machine."""
    source: str = ""
    """As written on the command line, for messages; empty where nobody wrote it."""

    @property
    @abstractmethod
    def family(self) -> str | None:
        """What sets its defaults, such as `mnist`; None where there are none.

        Sets read from files join a family by the shape of their images.

        Raises:
            DataError: the shape has to be read from files, and they cannot be.
        """

    @abstractmethod
    def load(self, split: Split) -> Examples:
        """All examples of a split, in the order of the source.

        Raises:
            DataError: the split is missing, unreadable, or not labelled images of one size.
        """

    def digest(self, split: Split) -> str:
        """SHA-256 that identifies the source of a split, as cheaply as the source allows.

        Raises:
            DataError: as `load`.
        """
        return self.load(split).digest
