"""What a case says of its cells: what they broke at an epsilon, and what attacks go by."""

from __future__ import annotations

import pytest

from bench.threat import Epsilon
from tests.trust.frames import case, declared, frame, honest
from tests.trust.situations import MASKED


def test_rounds_count_at_their_own_epsilon() -> None:
    """What escalation broke at one is no word on another."""
    this = case({**honest(), **MASKED}, rounds=(9, 2))
    assert this.rounds == (9, 2)
    assert this.at_epsilon(Epsilon.parse("0.2")).rounds == ()
    assert this.at_epsilon(Epsilon.parse("1/10")).rounds == (9, 2)


def test_worst_case_credits_smaller_norms() -> None:
    """Found at 0.05 it is broken at 0.1; found at 0.5 it is not; probes break nothing."""
    this = case({
        ("apgd-ce", "0.05"): frame([1], distance=0.05),
        ("margin-pgd", "0.5"): frame([2], distance=0.5),
        "probe-behaviour": frame([3], distance=0.0),
        "clean": frame(),
    })  # fmt: skip
    assert this.broken_at(this.headline) == {1}


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ("pgd[steps=80]", "gradient"), ("fmn", "gradient"), ("margin-pgd", "gradient"),
        ("fd-pgd", "scores"), ("square", "scores"), ("hop-skip-jump", "scores"),
        ("uniform-noise", "noise"), ("averaged-pgd", "smoothed"), ("surrogate", "surrogate"),
        ("transfer", "transfer"), ("autoattack", "mixed"), ("probe-gradients", "probe"),
        ("unheard-of", "mixed"),
    ],
)  # fmt: skip
def test_what_attacks_go_by(attack: str, expected: str) -> None:
    """Only attacks on the model's own gradient are the union that others are measured by."""
    assert case(attacks=declared([attack])).approach(attack) == expected
