"""Randomised defenses: judged on fresh draws, against closed forms."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from torch import nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.matrix.judge import DRAWS, is_randomised
from tests.toy_models import Sum, attack_only, linear_examples

SIGMA = 0.4
EPSILON = 0.02


class NoisySum(nn.Module):
    """`Sum` with Gaussian noise on s: right with probability Phi(|s| / SIGMA)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2), other ones at each call."""
        s = (x - 0.5).flatten(1).sum(dim=1) + SIGMA * torch.randn(len(x))
        return torch.stack([-s, s], dim=1)


def chance_of_right(epsilon: float) -> list[float]:
    """Of each example under the exact attack, in closed form."""
    s = (linear_examples().inputs.double() - 0.5).flatten(1).sum(dim=1).abs() - 16 * epsilon
    return [0.5 * (1 + math.erf(value / SIGMA / math.sqrt(2))) for value in s.tolist()]


def error(probabilities: list[float]) -> float:
    """Four standard errors of the mean over examples of `DRAWS` draws each."""
    n = len(probabilities)
    return 4 * math.sqrt(sum(p * (1 - p) for p in probabilities) / DRAWS) / n


def test_accuracies_are_the_mean_fraction_of_right_draws() -> None:
    """Clean and under the exact attack, within the draws' own error."""
    examples = linear_examples()
    result = attack_only(
        NoisySum(), examples.inputs, examples.labels, epsilons=[str(EPSILON)], attacks="test-best"
    )
    defense = result.summary["defenses"]["model"]
    clean, attacked = chance_of_right(0), chance_of_right(EPSILON)
    assert sum(attacked) / 20 < sum(clean) / 20 - 0.1
    assert defense["clean_accuracy"] == pytest.approx(sum(clean) / 20, abs=error(clean))
    row = defense["attacks"]["test-best"][str(EPSILON)]["robust_accuracy"]
    # Examples that are wrong in most draws unperturbed are not attacked.
    expected = [a if c > 0.5 else c for a, c in zip(attacked, clean, strict=True)]
    assert row == pytest.approx(sum(expected) / 20, abs=error(expected))
    assert (result.outcomes_full["draws"] == DRAWS).all()
    assert defense["worst_case"][str(EPSILON)]["majority_accuracy"] != row


def test_choosing_the_worst_of_many_candidates_does_not_lower_the_figure_by_chance() -> None:
    """Eight equal attacks: the worst case stays one attack's closed form.

    Choosing and reporting by the same draws would lower it by about 1.4 standard deviations of a
    single example's fraction, here some six points.
    """
    examples = linear_examples()
    copies = ",".join(f"test-copy[number={i}]" for i in range(1, 9))
    result = attack_only(
        NoisySum(), examples.inputs, examples.labels, epsilons=[str(EPSILON)], attacks=copies
    )
    worst = result.summary["defenses"]["model"]["worst_case"][str(EPSILON)]["robust_accuracy"]
    expected = [
        min(a, c) for a, c in zip(chance_of_right(EPSILON), chance_of_right(0), strict=True)
    ]
    assert worst == pytest.approx(sum(expected) / 20, abs=error(expected))


def test_a_randomised_defense_is_detected_and_an_honest_one_is_not() -> None:
    """By asking again."""
    inputs = linear_examples().inputs
    assert is_randomised(NoisySum(), inputs)
    assert not is_randomised(Sum(), inputs)


def test_the_same_seed_draws_the_same() -> None:
    """A run of a randomised defense repeats as well."""
    examples = linear_examples()
    first, second = (
        attack_only(
            NoisySum(), examples.inputs, examples.labels, epsilons=["0.02"], attacks="test-best"
        )
        for _ in range(2)
    )
    assert first.outcomes_full.equals(second.outcomes_full)


def test_one_number_is_shown_ruled_and_said() -> None:
    """The mean over draws, in the table, in what runs are compared by, and for the verdict."""
    examples = linear_examples()
    result = attack_only(
        NoisySum(), examples.inputs, examples.labels, epsilons=["0.01", "0.02"], attacks="test-best"
    )
    found = result.summary["defenses"]["model"]
    assert statistics.fmean(found["right"]["clean"]) == pytest.approx(found["clean_accuracy"])
    differs = False
    for epsilon, worst in found["worst_case"].items():
        shown = worst["robust_accuracy"]
        assert statistics.fmean(found["right"][epsilon]) == pytest.approx(shown)
        differs |= worst["majority_accuracy"] != pytest.approx(shown)
    assert differs
    plain = attack_only(Sum(), examples.inputs, examples.labels, epsilons=["0.02"], attacks="pgd")
    assert "right" not in plain.summary["defenses"]["model"]
