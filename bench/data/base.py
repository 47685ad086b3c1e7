"""What every data set offers, a fixed part of its examples, and its customary epsilons."""

from __future__ import annotations

import itertools
import warnings
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Literal

from bench.errors import DataError, InputNotice, UsageError
from bench.threat import Epsilon, Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from bench.api import Examples

    #: Is told how many images of how many are decoded.
    OnProgress = Callable[[int, int], None]

Split = Literal["train", "test"]

#: The shapes (C, H, W) by which a data set read from files joins a family.
FAMILY_OF_SHAPE = {(1, 8, 8): "digits", (1, 28, 28): "mnist", (3, 32, 32): "cifar10"}


class Dataset(ABC):
    """Labelled images in a train and a test split, read when asked for."""

    name: str
    """As in tables; it holds no path of this machine."""
    written: str = ""
    """As on the command line, for messages; empty where nobody wrote it."""
    embedded: ClassVar[bool] = False
    """Whether its examples come with Winnow, in no file of anybody else's."""
    notes: tuple[str, ...] = ()
    """What reading it passed over or chose, a sentence each; known after `load`."""

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

    def choose(
        self,
        split: Split,
        n: int,
        *,
        fewer: bool = False,
        on_progress: OnProgress = lambda done, of: None,
    ) -> Examples:
        """`n` examples of a split, those that `subset` takes of all; others need not be decoded.

        Args:
            split: whose examples.
            n: how many.
            fewer: whether all there are will do where there are fewer.
            on_progress: is told how far it is, where that takes long.

        Raises:
            DataError: as `load` and `subset` do, but that only the labels of all are looked at.
        """
        every = self.load(split)
        return subset(every, min(n, len(every)) if fewer else n)

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray | None:
        """Some of the `n` examples that `choose` takes, without torch where others read them.

        Args:
            split: as of `choose`.
            n: as of `choose`.
            places: which of them, from 0.

        Returns:
            Inputs float32 (len(places), C, H, W), bit for bit those of `choose`; None where this
            machine does not have them.

        Raises:
            DataError: as `choose`.
        """
        return None

    def digest(self, split: Split) -> str:
        """SHA-256 that identifies the source of a split, as cheaply as the source allows.

        Raises:
            DataError: as `load`.
        """
        return self.load(split).digest

    def note(self, sentence: str) -> None:
        """Say, and keep for the run's record, what was passed over or chosen."""
        if sentence not in self.notes:
            self.notes = (*self.notes, sentence)
        warnings.warn(f"{self.name}: {sentence}", InputNotice, stacklevel=2)


def subset(examples: Examples, n: int | None, seed: int = 0) -> Examples:
    """The first `n` of one fixed order: the classes take turns, each in an order drawn by the seed.

    The first m of n examples are therefore the subset of size m. A class that has run out is
    passed over. The order comes from numpy's `RandomState`, whose stream never changes.

    Args:
        examples: what to choose from.
        n: how many; None keeps all examples as they are.
        seed: of the order, at least 0.

    Raises:
        DataError: `n` is less than 1 or more than there are, or the seed is no seed.
    """
    if n is None:
        return examples
    labels = examples.labels.cpu().numpy()
    return examples.take(chosen(labels, examples.classes, n, examples.name, seed))


def chosen(labels: np.ndarray, classes: int, n: int, name: str, seed: int = 0) -> list[int]:
    """The places of the examples that `subset` takes, in its order.

    Args:
        labels: of all examples, int64, (N,).
        classes: the number of classes.
        n: how many.
        name: of the data set, for errors.
        seed: of the order.

    Raises:
        DataError: as `subset` does.
    """
    import numpy as np

    if not 1 <= n <= len(labels):
        raise DataError(
            f"n has to be between 1 and {len(labels)}, the examples there are in {name}; got {n}"
        )
    if not 0 <= seed < 2**32:
        raise DataError(f"the seed has to be between 0 and {2**32 - 1}; got {seed}")
    stream = np.random.RandomState(seed)
    orders = [
        stream.permutation(np.flatnonzero(labels == label)).tolist() for label in range(classes)
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*orders))
    return [index for index in turns if index is not None][:n]


_MNIST = ("0.05 0.1 0.2 0.3", "0.3")
_CIFAR_LINF = ("1/255 2/255 4/255 8/255", "8/255")
_CIFAR_L2 = ("0.25 0.5 1", "0.5")

#: Family and norm to the epsilons, ascending, and the headline.
_DEFAULTS = {
    ("digits", Norm.LINF): ("0.05 0.1 0.15 0.2", "0.1"),
    ("digits", Norm.L2): ("0.25 0.5 1 1.5", "0.5"),
    ("mnist", Norm.LINF): _MNIST,
    ("fashion-mnist", Norm.LINF): _MNIST,
    ("svhn", Norm.LINF): ("2/255 4/255 8/255 12/255", "12/255"),
    ("cifar10", Norm.LINF): _CIFAR_LINF,
    ("cifar10", Norm.L2): _CIFAR_L2,
    ("cifar100", Norm.LINF): _CIFAR_LINF,
    ("cifar100", Norm.L2): _CIFAR_L2,
}


def default_epsilons(family: str | None, norm: Norm) -> tuple[list[Epsilon], Epsilon]:
    """The default epsilons of a family of data sets, ascending, and its headline epsilon.

    Raises:
        UsageError: there are none for this family and norm.
    """
    if family is None or (family, norm) not in _DEFAULTS:
        what = f"{family} data" if family else "images of this size"
        raise UsageError(
            f"there are no default epsilons for {what} in {norm}; give them, such as --eps 0.1,0.2"
        )
    written, ranking = _DEFAULTS[family, norm]
    return Epsilon.parse_many(written.split()), Epsilon.parse(ranking)


def headline(
    family: str | None, norm: Norm, epsilons: Sequence[Epsilon], chosen: str = ""
) -> Epsilon:
    """The epsilon that ranks defenses: the default one if it is among these, else the largest.

    Args:
        family: of the data set, or None.
        norm: of the threat model.
        epsilons: those asked for, at least one.
        chosen: in place of that rule, as written; nothing where empty.

    Raises:
        UsageError: what was chosen is none of these.
    """
    if chosen:
        wanted = Epsilon.parse(chosen)
        for epsilon in epsilons:
            if epsilon == wanted:
                return epsilon
        raise UsageError(
            f"the headline epsilon {chosen} is none of the run's "
            f"({', '.join(map(str, epsilons))}): choose one of them, or add it to --eps"
        )
    if family is not None and (family, norm) in _DEFAULTS:
        usual = Epsilon.parse(_DEFAULTS[family, norm][1])
        for epsilon in epsilons:
            if epsilon == usual:
                return epsilon
    return max(epsilons, key=float)
