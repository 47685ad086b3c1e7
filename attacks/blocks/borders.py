"""Where a model's class changes between two examples: whether its margin gets there by itself.

What attacks follow is the margin. One that is still large where the class changes, and of the
other sign a step further, says nothing of where that is: scores beside a decision that something
else takes, a vote, a table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.api.attacks import margins
from bench.attacks.blocks.ball import Streams
from bench.attacks.blocks.behaviour import logits_where_finite

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

#: Other examples that each is connected with, and how often each way is halved: to the resolution
#: of float32.
WAYS, HALVINGS = 3, 26
#: So many units in the last place of the largest logit are rounding.
UNITS = 16


def border_jumps(problem: Problem) -> Tensor:
    """How far each example's margin falls in one step where its class changes, of its size.

    On the ways to `WAYS` others that have another class than its label. Its size is its margin at
    the example, or the median of all where that is larger.

    Args:
        problem: of a model that is not randomised.

    Returns:
        float64 (N,), the largest of its ways; NaN where there is none, or the example is wrong.
    """
    inputs, labels, count = problem.inputs, problem.labels, len(problem.inputs)
    rows = torch.arange(count, device=inputs.device)
    logits = logits_where_finite(problem, inputs)
    at_input = margins(logits, labels)
    right = at_input > 0
    if problem.randomised or not bool(right.any()):
        return torch.full_like(at_input, torch.nan)
    drawn = Streams(problem, "borders").uniform(rows, (count,))
    other = right[:, None] & (logits.argmax(dim=1) != labels[:, None])
    best, ends = torch.where(other, drawn, -1.0).topk(min(WAYS, count), dim=1)
    start, way = torch.where(best >= 0)
    near, far = inputs[start], inputs[ends[start, way]]
    for _ in range(HALVINGS):
        middle = (near + far) / 2
        inside = margins(logits_where_finite(problem, middle), labels[start]) > 0
        inside = inside.reshape(-1, *[1] * (inputs.ndim - 1))
        near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
    before, behind = (margins(logits_where_finite(problem, x), labels[start]) for x in (near, far))
    rounding = UNITS * _resolution(problem) * logits.abs().amax(dim=1)
    size = at_input.clamp(min=float(at_input[right].median()))
    jumps = torch.full(
        (count, ends.shape[1]), torch.nan, dtype=at_input.dtype, device=inputs.device
    )
    jumps[start, way] = (before - behind - rounding[start]).clamp(min=0) / size[start]
    largest = jumps.nan_to_num(-torch.inf).amax(dim=1)
    return torch.where(largest.isfinite(), largest, torch.nan)


def _resolution(problem: Problem) -> float:
    """The relative step of the numbers that the model computes with."""
    weights = (*problem.model.parameters(), *problem.model.buffers())
    floating = (each.dtype for each in weights if each.is_floating_point())
    return torch.finfo(next(floating, torch.float32)).eps
