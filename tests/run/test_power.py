"""From the probe of planted examples to what a run says of its attacks' power."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.run.evaluation import evaluate
from bench.trust import asked
from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    import pytest

PROBE = "probe-planted"


def test_a_sample_of_the_examples_tells_the_power_of_attacks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first 50 that the model gets right; on a linear model a gradient finds each at once."""
    monkeypatch.setattr(
        "bench.run.inquiry.requests", lambda case, menu: [asked(PROBE, case.headline.text)]
    )
    examples = linear_examples(n=70)
    labels = examples.labels.clone()
    labels[::10] = 1 - labels[::10]
    result = evaluate(
        Sum(),
        examples.inputs,
        labels,
        epsilons=["0.02"],
        attacks="margin-pgd",
        escalate=False,
    )
    outcomes = result.outcomes_full
    looked = outcomes[(outcomes["attack"] == PROBE) & outcomes["attacked"]]["index"].tolist()
    assert looked == [i for i in range(70) if i % 10][:50]
    power = result.summary["defenses"]["model"]["power"]
    assert power["planted"] > 40
    assert power == {
        "epsilon": "0.02",
        "planted": power["planted"],
        "found": {"margin-pgd[restarts=3]": power["planted"]},
        "together": power["planted"],
    }
    assert f"its attacks find {power['together']} of {power['planted']}" in result.to_markdown()
