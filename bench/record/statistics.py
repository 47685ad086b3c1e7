"""Statistics that go beside a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


def wilson(successes: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The Wilson score interval of a proportion (Wilson 1927), 95 % by default.

    Args:
        successes: how many of n; fractions of draws add up.
        n: at least 1.
        z: the standard normal quantile.

    Returns:
        Lower and upper end, within [0, 1]; the proportion itself is always inside.
    """
    p = successes / n
    middle = p + z * z / (2 * n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, min(p, (middle - half) / scale)), min(1.0, max(p, (middle + half) / scale))


Z95 = 1.959963984540054


def paired_interval(gained: float, lost: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Adjusted Wald interval of a difference of paired proportions (Bonett and Price 2012).

    Args:
        gained: pairs with a success on the first side only; fractions of draws add up.
        lost: pairs with a success on the second side only.
        n: all pairs.
        z: the standard normal quantile.
    """
    p, q = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: the binomial test of `gained` among the discordant pairs at 1/2."""
    discordant, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**discordant))


def fewest_found(n: int, k: int) -> int | None:
    """The fewest forged ones of n that k drawn without replacement miss at most one time in 20.

    Of t forged ones the k hold none with probability C(n - t, k) / C(n, k): hypergeometric.

    Args:
        n: all of them.
        k: drawn, from 0 to n.

    Returns:
        From 1 to n; None where none was drawn.
    """
    if not k:
        return None
    all_draws = math.comb(n, k)
    few, enough = 0, n  # missed too often with `few`, never with `enough`
    while enough - few > 1:
        middle = (few + enough) // 2
        if 20 * math.comb(n - middle, k) <= all_draws:
            enough = middle
        else:
            few = middle
    return enough


class Paired(NamedTuple):
    """How two sides differ on the same examples, by fractions of draws."""

    difference: float
    """The mean of first minus second."""
    low: float
    """Of its 95 % interval, within [-1, 1]."""
    high: float
    p: float
    """Two-sided."""
    test: str
    """Whose p it is: `T_TEST`, or `SIGN_TEST` where nothing varies."""


T_TEST, SIGN_TEST = "paired t-test", "sign test"


def paired_t(differences: Sequence[float]) -> Paired:
    """Student's paired t-test of the mean difference.

    Examples that all differ by the same, or a single one, show no spread, from which the t-test
    would conclude that there is none: interval of no width, p = 0. They are counted instead, by
    the sign test and the interval of `paired_interval`.

    Args:
        differences: first minus second, of each pair, in [-1, 1]; at least one.
    """
    from scipy.stats import t

    n = len(differences)
    mean, low, high = t_interval(differences)
    if min(differences) == max(differences):
        gained, lost = max(mean, 0.0), max(-mean, 0.0)
        signs = n * (mean > 0), n * (mean < 0)
        return Paired(mean, *paired_interval(n * gained, n * lost, n), mcnemar(*signs), SIGN_TEST)
    error = (high - mean) / float(t.ppf(0.975, n - 1))
    p = float(2 * t.sf(abs(mean) / error, n - 1))
    return Paired(mean, max(-1.0, low), min(1.0, high), p, T_TEST)


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval of values that are normal around it; infinite for a single one.

    Of no width where all are alike: then they do not tell how much such values vary.
    """
    from scipy.stats import t

    n = len(values)
    if n > 1 and min(values) == max(values):  # no rounding error passes for a spread
        return values[0], values[0], values[0]
    mean = math.fsum(values) / n
    if n < 2:
        return mean, -math.inf, math.inf
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half
