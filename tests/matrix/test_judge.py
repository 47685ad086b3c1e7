"""The judge, against a model whose border is known in closed form."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.matrix.judge import judge, margins
from bench.models.counted import CountedModel
from bench.threat import Epsilon, Norm, ThreatModel
from tests.plugins import Best
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from bench.api import Problem, Proposal

EPSILON = "0.03"


def exact_robust_accuracy(epsilon: str = EPSILON) -> float:
    """Of `Sum` on `linear_examples` at a Linf epsilon, in closed form."""
    thresholds = linf_thresholds(linear_examples())
    robust = float((thresholds > float(Epsilon.parse(epsilon))).double().mean())
    assert 0 < robust < 1, "the epsilon has to divide the examples"
    return robust


def evaluate_with(attack: str, epsilons: list[str] | None = None):  # type: ignore[no-untyped-def]
    """The result of one attack on `Sum`."""
    examples = linear_examples()
    return attack_only(
        Sum(), examples.inputs, examples.labels, epsilons=epsilons or [EPSILON], attacks=attack
    )


def cell(attack: str, epsilon: str = EPSILON) -> dict:  # type: ignore[type-arg]
    """The summary's entry of one attack on `Sum`."""
    entry = evaluate_with(attack).summary["defenses"]["model"]["attacks"][attack][epsilon]
    assert isinstance(entry, dict)
    return entry


def test_the_best_attack_reaches_the_closed_form() -> None:
    """A row is the fraction of examples whose threshold lies beyond epsilon."""
    assert cell("test-best")["robust_accuracy"] == exact_robust_accuracy()


@pytest.mark.parametrize("attack", ["test-out-of-ball", "test-out-of-box"])
def test_a_candidate_outside_is_projected_and_judged_again(attack: str) -> None:
    """It gets no more than the ball holds: on a linear model exactly the closed form."""
    result = evaluate_with(attack)
    entry = result.summary["defenses"]["model"]["attacks"][attack][EPSILON]
    assert entry["robust_accuracy"] == exact_robust_accuracy()
    broken = result.outcomes_full[result.outcomes_full["broken"]]
    assert broken["projected"].all()
    assert (broken["distance_linf"] <= float(EPSILON) + 1e-6).all()


def test_nan_is_never_a_success() -> None:
    """Examples whose candidate is NaN stay robust, and the cell says how many there were."""
    examples = linear_examples()
    thresholds = linf_thresholds(examples)
    honest = (thresholds <= 0.03) & (torch.arange(len(examples)) % 2 == 1)
    entry = cell("test-nan")
    assert entry["robust_accuracy"] == 1 - honest.double().mean().item()
    assert entry["flags"] == ["10 candidate(s) not finite"]


def test_a_claim_of_success_counts_for_nothing() -> None:
    """An attack that returns the inputs broke nothing, whatever it says."""
    assert cell("test-lies")["robust_accuracy"] == 1.0


def test_an_attack_that_overwrites_its_arguments_harms_nobody() -> None:
    """The judge keeps inputs and labels of its own: black images lie outside the ball."""
    entry = cell("test-mutates")
    assert entry["robust_accuracy"] >= exact_robust_accuracy()


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        ("test-wrong-shape", r"returned shape \(19, 1, 4, 4\) for inputs of shape \(20, 1, 4, 4\)"),
        ("test-raises", "KeyError: 'lost'"),
        ("test-tampers", "left the model changed: its weights"),
        ("test-writes-data", "left the model changed: its weights"),
        ("test-hooks", "left the model changed: its modules"),
        ("test-starving", "out of memory, one example at a time"),
    ],
)
def test_a_failure_is_a_result_and_the_others_go_on(attack: str, reason: str) -> None:
    """The cell is recorded as failed with its reason; the next attack is right all the same."""
    result = evaluate_with(f"{attack},test-best")
    defense = result.summary["defenses"]["model"]
    (failed,) = defense["failed"]
    assert failed["attack"] == attack
    assert re.search(reason, failed["reason"])
    assert defense["attacks"][attack][EPSILON]["robust_accuracy"] is None
    assert defense["attacks"]["test-best"][EPSILON]["robust_accuracy"] == exact_robust_accuracy()
    assert not defense["worst_case"][EPSILON]["complete"]
    assert result.failed


def test_running_out_of_memory_splits_the_forward_pass_and_goes_on() -> None:
    """The shard is done again in smaller passes, with the same outcome."""
    assert cell("test-hungry")["robust_accuracy"] == exact_robust_accuracy()


class Counting(Sum):
    """Counts its calls in a buffer, and writes its weight as a binarised network does."""

    calls: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.latent = nn.Parameter(torch.tensor(-0.7))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same answer each time."""
        self.calls += 1
        self.latent.data = self.latent.data.sign()
        logits: torch.Tensor = super().forward(x) * self.latent.abs()
        return logits


def test_a_model_that_changes_itself_when_it_is_asked_is_evaluated() -> None:
    """It is no attack's doing; one that turns it around is found all the same."""
    examples = linear_examples()
    result = attack_only(
        Counting(),
        examples.inputs,
        examples.labels,
        epsilons=[EPSILON],
        attacks="test-best,test-hooks",
    )
    defense = result.summary["defenses"]["model"]
    assert defense["attacks"]["test-best"][EPSILON]["robust_accuracy"] == exact_robust_accuracy()
    assert [each["attack"] for each in defense["failed"]] == ["test-hooks"]


class BatchDependent(nn.Module):
    """Wrong only in company: alone it answers as `Sum` does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Flip the logits of any batch of two or more that moved off 0.5-centred data."""
        logits: torch.Tensor = Sum()(x)
        return -logits if len(x) > 1 else logits


def test_wrong_in_a_batch_but_right_alone_is_not_broken() -> None:
    """A candidate counts when it is wrong both ways; what is kept of it is the answer that decides.

    A point on a jump of the model (k-WTA) can have a margin far below 0 in the batch by rounding.
    """
    examples = linear_examples(4)
    threat = ThreatModel(Norm.LINF, Epsilon.parse("0.01"))
    inputs, labels = examples.inputs, examples.labels
    model = CountedModel(BatchDependent(), 2, None, "cpu")
    judgement = judge(model, inputs, labels, inputs.clone(), threat)
    assert model.forwards == 8, "four together, and each alone"
    assert (BatchDependent()(inputs).argmax(dim=1) != labels).all()
    assert not judgement.broken.any()
    assert torch.equal(judgement.prediction.classes, labels)
    torch.testing.assert_close(judgement.prediction.margins, margins(Sum()(inputs), labels))


def test_membership_allows_the_rounding_of_float32_and_no_more() -> None:
    """A float32 step of epsilon stays itself; one of 1.001 epsilon is projected."""
    examples = linear_examples()
    inputs, labels = examples.inputs, examples.labels
    threat = ThreatModel(Norm.LINF, Epsilon.parse("1/30"))
    step, model = torch.tensor(1 / 30), CountedModel(Sum(), 2, None, "cpu")
    exact = judge(model, inputs, labels, inputs + step, threat)
    assert not exact.projected.any()
    beyond = judge(model, inputs, labels, inputs + 1.001 * step, threat)
    assert beyond.projected.all()


def test_margins_are_the_label_minus_the_best_other() -> None:
    """Against the definition, written out for one example at a time."""
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    expected = [
        (row[y] - max(v for j, v in enumerate(row) if j != y))
        for row, y in zip(logits.double().tolist(), labels.tolist(), strict=True)
    ]
    torch.testing.assert_close(margins(logits, labels), torch.tensor(expected).double())


def test_attacks_and_judge_compute_in_ieee_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the program around them has set, and whatever an attack sets for itself."""
    seen = []

    class Watching(Sum):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.allow_tf32)
            return super().forward(x)

    def careless(self: Best, problem: Problem) -> Proposal:
        problem.model(problem.inputs)
        torch.backends.cudnn.allow_tf32 = True
        return original(self, problem)

    original = Best.run
    monkeypatch.setattr(Best, "run", careless)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    examples = linear_examples()
    found = attack_only(
        Watching(), examples.inputs, examples.labels, epsilons=[EPSILON], attacks="test-best"
    )

    row = found.summary["defenses"]["model"]["attacks"]["test-best"][EPSILON]
    assert row["robust_accuracy"] == exact_robust_accuracy()
    # The first call only counts the classes.
    assert len(seen) > 3
    assert not any(seen[1:])
    assert torch.backends.cudnn.allow_tf32
