"""Statistics beside a figure, against enumeration."""

from __future__ import annotations

import itertools

import pytest

from bench.record.statistics import (
    fewest_found,
    mcnemar,
    paired_interval,
    paired_t,
    t_interval,
)


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


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize("each", [1.0, 0.1, -0.3])
def test_pairs_that_all_differ_alike_are_counted(n: int, each: float) -> None:
    """No spread is no certainty: n heads in a row, p = 2^(1 - n), and an interval of some width.

    Student's t has p = 0 for two of them, and of 0.1 three times a spread of rounding errors.
    """
    found = paired_t([each] * n)

    assert found.difference == each
    assert found.p == pytest.approx(2.0 ** (1 - n))
    assert found.low < each <= found.high or found.low <= each < found.high
    assert (found.low, found.high) != (each, each)
    assert found.test == "sign test"
    if abs(each) == 1:  # whole draws are plain pairs
        assert (found.low, found.high) == paired_interval(n, 0, n)
        assert found.p == mcnemar(n, 0)


def test_no_difference_anywhere_is_no_evidence() -> None:
    """As two sides without discordant pairs."""
    assert paired_t([0.0] * 9)[:4] == (0.0, *paired_interval(0, 0, 9), 1.0)


def test_a_difference_of_accuracies_is_between_minus_one_and_one() -> None:
    """The t-interval of 1 and 0 goes from -5.9 to 6.9; p is 2 (1 - F(1)) of one degree, a half."""
    found = paired_t([1.0, 0.0])

    assert found[:3] == (0.5, -1.0, 1.0)
    assert found.p == pytest.approx(0.5)


def test_rounding_errors_are_no_spread() -> None:
    """The sum of 0.1 three times, divided by three, is not 0.1."""
    assert t_interval([0.1] * 3) == (0.1, 0.1, 0.1)
