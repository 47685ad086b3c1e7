"""Figures of a summary."""

from __future__ import annotations

import pytest
import torch

import tests.plugins  # noqa: F401 - registers the attacks
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
