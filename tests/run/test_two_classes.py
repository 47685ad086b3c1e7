"""Two classes, whose chance is a half: at chance a figure is examined before it is `broken`."""

from __future__ import annotations

import pytest
import torch

from bench.run.evaluation import evaluate
from tests.toy_models import Sum, linear_examples, linf_thresholds

EXAMPLES = linear_examples(30)
THRESHOLDS = linf_thresholds(EXAMPLES)
#: Inputs whose first pixel is brighter hide their gradient: 17 of 30.
BRIGHT = EXAMPLES.inputs[:, 0, 0, 0].sort().values[13] - 1e-3
#: The norm that all but two of the examples are broken at, by closed form.
EPSILON = f"{float(THRESHOLDS.sort().values[27]) * 1.02:.4f}"


class Hidden(Sum):
    """`Sum`, which autograd knows nothing of where the first pixel is bright."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2)."""
        hides = (x[:, 0, 0, 0] > BRIGHT).reshape(-1, 1, 1, 1)
        return super().forward(torch.where(hides, x.detach(), x))


@pytest.mark.whole
@pytest.mark.parametrize("escalate", [True, False])
def test_a_masked_model_is_not_excused_by_chance(*, escalate: bool) -> None:
    """Its figure is the closed form's, or its word says that it may be lower."""
    result = evaluate(
        Hidden(), EXAMPLES.inputs, EXAMPLES.labels, epsilons=[EPSILON], attacks="fgsm,pgd",
        escalate=escalate, escalation_budget=30 * 3_000,
    )  # fmt: skip

    found = result.summary["defenses"]["model"]
    worst = found["worst_case"][EPSILON]
    truth = float((float(EPSILON) < THRESHOLDS).sum()) / 30
    assert truth == pytest.approx(2 / 30)
    assert truth <= worst["robust_accuracy"] <= 0.5
    assert worst["verdict"] in ("broken", "unreliable")
    if worst["verdict"] == "broken":
        assert escalate
        assert worst["robust_accuracy"] == pytest.approx(truth)
    failed = {item["id"] for item in found["evidence"] if item["status"] == "fail"}
    assert "zero-margin-gradient" in failed
    assert any("gradient" in reason for reason in found["verdict"]["reasons"])


@pytest.mark.usefixtures("gradients_alone")
def test_a_figure_at_chance_of_two_classes_says_nothing_unexamined() -> None:
    """At ten classes it speaks for itself; here it is not examined, even where nothing is left."""
    result = evaluate(
        Sum(), EXAMPLES.inputs, EXAMPLES.labels, epsilons=["0.001", EPSILON], headline="0.001",
        attacks="pgd", escalate=False,
    )  # fmt: skip

    worst = result.summary["defenses"]["model"]["worst_case"]
    assert worst[EPSILON]["robust_accuracy"] < 0.5
    assert worst[EPSILON]["verdict"] == "not examined"
