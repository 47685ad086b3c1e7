"""The epsilons that are customary for a family of data sets, and the one that ranks defenses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.threat import Epsilon, Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_NORM = Norm.LINF

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


def headline(family: str | None, norm: Norm, epsilons: Sequence[Epsilon]) -> Epsilon:
    """The epsilon that ranks defenses: the default one if it is among these, else the largest.

    Args:
        family: of the data set, or None.
        norm: of the threat model.
        epsilons: those asked for, at least one.
    """
    if family is not None and (family, norm) in _DEFAULTS:
        usual = Epsilon.parse(_DEFAULTS[family, norm][1])
        for epsilon in epsilons:
            if epsilon == usual:
                return epsilon
    return max(epsilons, key=float)
