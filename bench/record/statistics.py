"""Statistics that go beside a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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


def paired_interval(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Adjusted Wald interval of a difference of paired proportions (Bonett and Price 2012).

    Args:
        gained: pairs with a success on the first side only.
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


def paired_t(differences: Sequence[float]) -> tuple[float, float, float, float]:
    """Student's paired t-test: the mean difference, its 95 % interval, and the two-sided p.

    Args:
        differences: first minus second, of each pair; at least two.
    """
    from scipy.stats import t

    mean, low, high = t_interval(differences)
    error = (high - mean) / float(t.ppf(0.975, len(differences) - 1))
    if error == 0:
        return mean, low, high, float(mean == 0)
    return mean, low, high, float(2 * t.sf(abs(mean) / error, len(differences) - 1))


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval of values that are normal around it; infinite for a single one."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, -math.inf, math.inf
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half
