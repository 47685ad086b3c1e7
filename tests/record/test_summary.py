"""Figures of a summary."""

from __future__ import annotations

import pytest
import torch

import tests.plugins  # noqa: F401 - registers the attacks
from bench.record.older import upgraded
from tests.toy_models import Sum, attack_only, linear_examples


@pytest.mark.parametrize("wrong", [0, 11, 14, 16, 20])
def test_an_attack_that_finds_nothing_leaves_the_clean_accuracy(wrong: int) -> None:
    """The same number to the last bit: the robust accuracy is never above the clean one."""
    examples = linear_examples()
    labels = torch.where(torch.arange(20) < wrong, 1 - examples.labels, examples.labels)

    result = attack_only(Sum(), examples.inputs, labels, epsilons=["0.02"], attacks="test-lies")

    defense = result.summary["defenses"]["model"]
    assert defense["clean_accuracy"] == (20 - wrong) / 20
    assert defense["worst_case"]["0.02"]["robust_accuracy"] == defense["clean_accuracy"]


def test_older_verdicts_are_read_by_today_s_words() -> None:
    """At chance a figure was called credible, and the headline's verdict was copied."""
    written = {"0.05": "suspect", "0.1": "suspect", "0.2": "credible"}
    masked = {
        "verdict": {"level": "suspect", "reasons": ["Gradients mislead."]},
        "worst_case": {epsilon: {"verdict": level} for epsilon, level in written.items()},
    }
    gone = {
        "verdict": {"level": "credible", "reasons": ["0 of 9 survive: it is broken."]},
        "worst_case": {"0.05": {"verdict": "credible"}, "0.1": {"verdict": "credible"}},
    }
    unexamined = {"worst_case": {"0.1": {"verdict": None}}}
    defenses = {"masked": masked, "gone": gone, "unexamined": unexamined}
    older = {"headline": "0.1", "defenses": defenses, "figures": {}}

    found = upgraded(older)

    levels = {
        name: {epsilon: worst["verdict"] for epsilon, worst in part["worst_case"].items()}
        for name, part in found["defenses"].items()
    }
    assert levels == {
        "masked": {"0.05": "not examined", "0.1": "suspect", "0.2": "broken"},
        "gone": {"0.05": "not examined", "0.1": "broken"},
        "unexamined": {"0.1": None},
    }
    assert found["defenses"]["gone"]["verdict"]["level"] == "broken"
    assert all(part["examinations"] == {} for part in found["defenses"].values())
    assert upgraded(found) == found
    assert older["defenses"]["gone"]["verdict"]["level"] == "credible"  # type: ignore[index]


def test_older_summaries_examined_elsewhere_call_nothing_credible() -> None:
    """Examined at one epsilon, then run at another: what did not measure gradients is no verdict.

    One that doubts keeps its word, and so does one of today's.
    """
    unmeasured = {
        "id": "gradient-fidelity",
        "status": "not run",
        "sentence": "Not run: nothing measured it at epsilon 0.1.",
    }

    def part(level: str, **more: object) -> dict[str, object]:
        return {
            "verdict": {"level": level, "reasons": ["Why."]},
            "evidence": [unmeasured],
            "marks": {},
            "comparison": None,
            "worst_case": {"0.05": {"verdict": level}, "0.1": {"verdict": level}},
            **more,
        }

    defenses = {
        "moved": part("credible"),
        "failed": part("unreliable"),
        "new": part("credible", examinations={"0.05": {"verdict": {"level": "credible"}}}),
    }
    found = upgraded({"headline": "0.1", "defenses": defenses, "figures": {}})["defenses"]

    words = {n: [w["verdict"] for w in p["worst_case"].values()] for n, p in found.items()}
    assert words["moved"] == ["not examined", "not examined"]
    assert words["failed"] == ["not examined", "unreliable"]
    assert words["new"] == ["credible", "credible"]
    assert not {"verdict", "evidence", "marks", "comparison"} & found["moved"].keys()
