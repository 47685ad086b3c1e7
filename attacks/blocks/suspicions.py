"""What AutoAttack's own checks look for, before and while it attacks: flags for readers.

The checks are those of AutoAttack's `checks` module (see its `flags_doc.md`), with its thresholds.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import torch

from bench.api import Flag

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

RANDOMISED = Flag("autoattack-randomised", "AutoAttack: the defense seems to be randomised")
PROBABILITIES = Flag(
    "autoattack-probabilities",
    "AutoAttack: the output looks like probabilities instead of logits",
)
ZERO_GRADIENT = Flag(
    "autoattack-zero-gradient", "AutoAttack: the gradient is zero for some examples"
)
SQUARE = Flag(
    "autoattack-square", "AutoAttack: Square lowers the accuracy beyond the white-box attacks"
)
DYNAMIC = Flag(
    "autoattack-dynamic",
    "AutoAttack: the defense seems to compute gradients inside its forward pass",
)

#: How often the model is asked the same.
ASKED = 5
#: How far two answers, scaled to size 1, may be apart; and sums of probabilities from 1.
APART, ROUNDED = 1e-4, 1e-5
#: By how much Square may lower the accuracy.
LOWERED = 0.002


def look_over(problem: Problem) -> tuple[Tensor, list[Flag]]:
    """What the model says of the inputs, and what that lets suspect.

    Args:
        problem: each example of it is asked about once, at however many epsilons it is.

    Returns:
        Logits (N, classes), and flags.
    """
    inputs, which = problem.inputs, torch.arange(len(problem.labels), device=problem.labels.device)
    if problem.examples is not None:
        names, which = torch.unique(problem.examples, return_inverse=True)
        first = torch.zeros_like(names).scatter_(0, which, torch.arange(len(which)).to(names))
        inputs = inputs[first]
    flags = [DYNAMIC] if _takes_gradients(problem, inputs) else []
    with torch.no_grad():
        answers = torch.stack([problem.model(inputs) for _ in range(ASKED)])
    flags += [RANDOMISED] if _differ(answers, problem.labels, which) else []
    flags += [PROBABILITIES] if _sum_to_one(answers[-1]) else []
    return answers[-1][which], flags


def _differ(answers: Tensor, labels: Tensor, which: Tensor) -> bool:
    """Whether answers to the same inputs are apart; (ASKED, E, classes)."""
    right = (answers.argmax(dim=2)[:, which] == labels).sum(dim=1)
    scaled = answers / (answers.norm(dim=2, keepdim=True) + 1e-10)
    apart = (scaled[:, None] - scaled[None]).norm(dim=3).max()
    return bool((right != right[0]).any() or apart > APART)


def _sum_to_one(logits: Tensor) -> bool:
    sums = logits.sum(dim=1)
    between = logits.min() > -ROUNDED and logits.max() < 1 + ROUNDED
    return bool(between and ((sums - 1).abs() < ROUNDED).all())


def _takes_gradients(problem: Problem, inputs: Tensor) -> bool:
    """Whether asking the model calls autograd; the trace function of a debugger is put back."""
    calls = {torch.autograd.grad.__code__, torch.autograd.backward.__code__}
    seen = False

    def watch(frame: Any, event: str, argument: Any) -> None:
        nonlocal seen
        seen |= frame.f_code in calls

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        problem.model(inputs)
    finally:
        sys.settrace(before)
    return seen
