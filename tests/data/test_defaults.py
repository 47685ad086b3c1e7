from __future__ import annotations

import pytest

from bench.data import default_epsilons, headline
from bench.errors import UsageError
from bench.threat import Epsilon, Norm

CASES = [
    ("digits", Norm.LINF, "0.05 0.1 0.15 0.2", "0.1"),
    ("digits", Norm.L2, "0.25 0.5 1 1.5", "0.5"),
    ("mnist", Norm.LINF, "0.05 0.1 0.2 0.3", "0.3"),
    ("fashion-mnist", Norm.LINF, "0.05 0.1 0.2 0.3", "0.3"),
    ("svhn", Norm.LINF, "2/255 4/255 8/255 12/255", "12/255"),
    ("cifar10", Norm.LINF, "1/255 2/255 4/255 8/255", "8/255"),
    ("cifar10", Norm.L2, "0.25 0.5 1", "0.5"),
    ("cifar100", Norm.LINF, "1/255 2/255 4/255 8/255", "8/255"),
    ("cifar100", Norm.L2, "0.25 0.5 1", "0.5"),
]


@pytest.mark.parametrize(("family", "norm", "written", "ranking"), CASES)
def test_defaults_are_the_customary_ones(
    family: str, norm: Norm, written: str, ranking: str
) -> None:
    """Epsilons come ascending and as people write them, with the headline among them."""
    epsilons, usual = default_epsilons(family, norm)

    assert written.split() == [str(epsilon) for epsilon in epsilons]
    assert ranking == str(usual)


@pytest.mark.parametrize(
    ("family", "norm", "what"),
    [
        ("digits", Norm.L1, "digits data in L1"),
        ("mnist", Norm.L2, "mnist data in L2"),
        (None, Norm.LINF, "images of this size in Linf"),
    ],
)
def test_missing_defaults_ask_for_epsilons(family: str | None, norm: Norm, what: str) -> None:
    """The error says for what there are none and how to give them."""
    with pytest.raises(UsageError, match=f"no default epsilons for {what}; give them.*--eps"):
        default_epsilons(family, norm)


def test_headline_is_the_default_if_asked_for() -> None:
    """It keeps the text of the epsilon asked for, even where that is written otherwise."""
    epsilons = Epsilon.parse_many(["0.05", "1/10", "0.2"])

    assert str(headline("digits", Norm.LINF, epsilons)) == "1/10"


@pytest.mark.parametrize("family", ["digits", "imagenet", None])
def test_headline_is_else_the_largest(family: str | None) -> None:
    """Without the default, or without any, the largest epsilon ranks."""
    epsilons = Epsilon.parse_many(["0.07", "0.3", "0.2"])

    assert str(headline(family, Norm.LINF, epsilons)) == "0.3"
