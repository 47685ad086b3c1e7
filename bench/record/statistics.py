"""Statistics that go beside a figure."""

from __future__ import annotations

import math


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
