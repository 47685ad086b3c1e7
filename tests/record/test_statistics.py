"""Statistics beside a figure, against enumeration."""

from __future__ import annotations

import itertools

import pytest

from bench.record.statistics import fewest_found


def missed(n: int, k: int, forged: int) -> float:
    """The share of all choices of k of n that hold none of the first `forged`, one by one."""
    choices = list(itertools.combinations(range(n), k))
    return sum(all(item >= forged for item in chosen) for chosen in choices) / len(choices)


@pytest.mark.parametrize("n", [1, 2, 5, 9, 12])
def test_so_many_forged_ones_are_found_and_one_fewer_are_not(n: int) -> None:
    """For every number drawn: missed at most one time in twenty, and more often with one fewer."""
    for k in range(1, n + 1):
        fewest = fewest_found(n, k)
        assert fewest is not None
        assert missed(n, k, fewest) <= 0.05
        assert fewest == 1 or missed(n, k, fewest - 1) > 0.05


def test_nothing_drawn_finds_nothing_and_everything_drawn_finds_one() -> None:
    """At the ends, for large numbers as well."""
    assert fewest_found(600, 0) is None
    assert fewest_found(0, 0) is None
    assert fewest_found(100_000, 100_000) == 1
    # Each of 2,000 draws misses a share q with 1 - q, nearly independently: 0.05^(1 / 2000).
    assert fewest_found(1_000_000, 2_000) == pytest.approx(
        1_000_000 * (1 - 0.05 ** (1 / 2000)), rel=0.01
    )
