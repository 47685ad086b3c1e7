"""The rule, situation by situation, and the reasons that it gives."""

from __future__ import annotations

from typing import Any

import pytest

from bench.trust import evidence_of, verdict
from tests.trust.frames import N, case, frame, honest
from tests.trust.situations import DETACHED, MASKED, TABLE


@pytest.mark.parametrize("situation", TABLE)
def test_verdict(situation: str) -> None:
    """The rule of docs/verdict.md; at most three reasons, at least one, each a sentence."""
    cells, more, expected = TABLE[situation]
    this = case({**honest(), **cells}, **more)
    found = verdict(evidence_of(this), this)
    assert found.level == expected
    assert 1 <= len(found.reasons) <= 3
    assert all(reason.rstrip().endswith(".") for reason in found.reasons)
    assert found.to_json()["level"] == expected


#: Of two classes, whose chance is 100 of 200: changed cells, rounds of escalation, and the verdict.
FEW: dict[str, tuple[dict[Any, Any], tuple[int, ...], str]] = {
    "masked, and nothing stronger followed": (MASKED, (), "suspect"),
    "masked, still falling": (MASKED, (9, 2), "unreliable"),
    "masked, at the bottom": (MASKED, (9, 1), "broken"),
    "one soft test, and nothing stronger followed": (
        {"square": frame(range(110))}, (), "suspect",
    ),
    "one soft test, at the bottom": ({"square": frame(range(110))}, (1,), "broken"),
    "detached, and nothing stronger followed": (
        {"probe-gradients": frame(**DETACHED), "square": frame(range(110))}, (), "unreliable",
    ),
    "examples from elsewhere that nobody had": (
        {"external:theirs": frame(range(150))}, (), "unreliable",
    ),
    "nothing survives": ({"square": frame(range(N))}, (), "broken"),
    "nothing survives the last round": ({"square": frame(range(N))}, (9,), "broken"),
}  # fmt: skip


@pytest.mark.parametrize("situation", FEW)
def test_at_chance_of_few_classes_evidence_comes_first(situation: str) -> None:
    """`broken` once stronger attacks have found no more, with doubts beside it; never credible."""
    cells, rounds, expected = FEW[situation]
    this = case({**honest(), **cells}, rounds=rounds, classes=2)
    assert this.at_chance
    found = verdict(evidence_of(this), this)
    assert found.level == expected
    if expected == "broken":
        assert found.reasons[0].endswith("the claim is gone.")
    assert 1 <= len(found.reasons) <= 3
    assert verdict([], case(honest(), classes=2)).level == "broken"  # nothing asked for more


def test_reasons_are_the_strongest_of_each_family() -> None:
    """In the words of a researcher."""
    this = case({**honest(), **MASKED})
    found = verdict(evidence_of(this), this)
    assert found.families == ("comparisons", "gradients", "optimisation")
    assert any(
        "Finite differences broke 20 examples that no attack on the model's own gradient could"
        in reason for reason in found.reasons
    )  # fmt: skip
