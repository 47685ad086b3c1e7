"""Paired statistics against scipy and closed forms."""

from __future__ import annotations

import dataclasses

import pytest
from scipy.stats import binomtest, ttest_rel

from bench.record.statistics import mcnemar, paired_interval
from bench.trust import compare, twin_evidence
from tests.trust.frames import case, frame


@pytest.mark.parametrize(
    ("gained", "lost"), [(0, 0), (1, 0), (5, 5), (12, 3), (3, 12), (40, 11), (700, 650)]
)
def test_mcnemar_is_the_exact_binomial_test(gained: int, lost: int) -> None:
    """Two-sided at 1/2 among the discordant pairs; 1 where there are none."""
    expected = binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert mcnemar(gained, lost) == pytest.approx(expected, rel=1e-12)


def test_interval_by_hand() -> None:
    """12 and 3 of 98 pairs: (13 - 4) / 100 ± z sqrt((0.17 - 0.0081) / 100)."""
    low, high = paired_interval(12, 3, 98)
    half = 1.959963984540054 * (0.1619 / 100) ** 0.5
    assert (low, high) == pytest.approx((0.09 - half, 0.09 + half), abs=1e-12)


def test_interval_turns_with_its_sides() -> None:
    """Swapping the sides swaps and negates its ends, and it stays within -1 and 1."""
    low, high = paired_interval(7, 2, 40)
    assert paired_interval(2, 7, 40) == pytest.approx((-high, -low))
    assert max(map(abs, paired_interval(1, 0, 1))) <= 1


def test_comparison_counts_the_same_examples() -> None:
    """The worst cases of both sides, paired."""
    mine = case({"apgd-ce": frame(range(60)), "fd-pgd": frame([90])})
    twin = case({"apgd-ce": frame(range(10, 100))}, name="relu")
    found = compare(dataclasses.replace(mine, twin=twin))
    assert found is not None
    assert (found.only_defense, found.only_twin) == (39, 10)
    assert found.difference == pytest.approx(29 / 200)
    assert found.low < found.difference < found.high
    assert found.missing == ("fd-pgd",)
    assert "these two checkpoints only" in found.sentence
    assert "did not get fd-pgd" in found.sentence
    assert found.to_json()["p"] == mcnemar(39, 10)


def test_a_randomised_side_is_compared_by_what_tables_show() -> None:
    """Student's paired t-test of the fractions of draws, against scipy; not by most draws."""
    mine = case({"eot-pgd": frame(range(60), draws=100, share=0.8)})
    twin = case({"apgd-ce": frame(range(10, 100))}, name="relu")
    found = compare(dataclasses.replace(mine, twin=twin))
    assert found is not None
    fractions = [0.2] * 60 + [1.0] * 140
    theirs = [1.0] * 10 + [0.0] * 90 + [1.0] * 100
    expected = ttest_rel(fractions, theirs)
    assert found.difference == pytest.approx((sum(fractions) - sum(theirs)) / 200)
    assert found.difference == pytest.approx((mine.shown - twin.shown) / 200)
    assert found.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert "paired t-test p = " in found.sentence


def test_credit_never_counts_against_a_defense() -> None:
    """It is context, and not applicable without a twin."""
    alone = twin_evidence(case())
    assert (alone.status, alone.counts) == ("not run", False)
    twin = case({"apgd-ce": frame(range(10))})
    worse = twin_evidence(dataclasses.replace(case({"apgd-ce": frame(range(60))}), twin=twin))
    assert (worse.status, worse.counts) == ("fail", False)
