"""Foolbox's attacks within epsilon, over the examples that are left.

Foolbox returns the last iterate, which can be right again although an earlier one was wrong, and
goes on with what is broken already. Here the best that was seen is kept, and what is broken beyond
doubt leaves the batch: its arithmetic as well as its passes. Steps, projections and random numbers
are Foolbox's own; the latter are drawn for all examples, so that none changes another's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import eagerpy as ep
import torch

from bench.attacks.blocks.catch import Catch
from bench.attacks.blocks.keeping import pace
from bench.attacks.blocks.library import foolbox

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem

BOX = foolbox.types.Bounds(0, 1)


class Remaining:
    """The model, asked about the examples that are left; remembers the best of each.

    Args:
        problem: with an epsilon.

    Attributes:
        catch: what was found.
        rows: the examples that are left, int64.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.catch = Catch(problem)
        self.rows = torch.arange(len(problem.labels), device=problem.labels.device)
        self._calls = 0

    @property
    def labels(self) -> Any:
        """Of the examples that are left."""
        return ep.astensor(self.problem.labels.index_select(0, self.rows))

    def __call__(self, x: Any) -> Any:
        """Logits of one input of each example that is left."""
        logits = self.problem.model(x.raw)
        self._calls += 1
        self.catch.offer(self.rows, x.raw.detach(), logits.detach())
        return ep.astensor(logits)

    def leave(self) -> Tensor | None:
        """Let go what is settled.

        Returns:
            The places of those that stay, int64, or None where all do.
        """
        if self._calls % pace(self.problem.inputs):
            return None
        stay = self.catch.unsettled(self.rows)
        if len(stay) == len(self.rows):
            return None
        self.rows = self.rows.index_select(0, stay)
        return stay


def descend(attack: Any, problem: Problem, epsilon: float, restarts: int) -> Tensor:
    """The way of `foolbox.attacks.gradient_descent_base.BaseGradientDescent`.

    Args:
        attack: one of that class.
        problem: what is attacked.
        epsilon: its epsilon.
        restarts: how often the descent runs, for what the earlier ones have left.

    Returns:
        What broke each example by the largest margin, or else where its first descent ended; as
        the inputs.
    """
    remaining = Remaining(problem)
    last = _descent(attack, remaining, epsilon)
    for _ in range(restarts - 1):
        if len(remaining.rows):
            _descent(attack, remaining, epsilon)
    found = remaining.catch.found.reshape(-1, *[1] * (last.ndim - 1))
    return torch.where(found, remaining.catch.best, last)


def _descent(attack: Any, remaining: Remaining, epsilon: float) -> Tensor:
    """Where one descent ends; what leaves on the way stays at its input."""
    last = remaining.problem.inputs.clone()
    x0 = x = ep.astensor(remaining.problem.inputs)
    optimizer = attack.get_optimizer(x0, attack.rel_stepsize * epsilon)
    if attack.random_start:
        x = attack.get_random_start(x0, epsilon).clip(*BOX)
    x0, x = (_only(each, remaining.rows) for each in (x0, x))
    _keep_only(optimizer, remaining.rows)
    loss = attack.get_loss_fn(remaining, remaining.labels)
    for _ in range(attack.steps):
        _, gradients = attack.value_and_grad(loss, x)
        stay = remaining.leave()
        if stay is not None:
            if len(stay) == 0:
                return last
            x0, x, gradients = (_only(each, stay) for each in (x0, x, gradients))
            _keep_only(optimizer, stay)
            loss = attack.get_loss_fn(remaining, remaining.labels)
        x = x + optimizer(attack.normalize(gradients, x=x, bounds=BOX))
        x = attack.project(x, x0, epsilon).clip(*BOX)
    x = attack.distance.clip_perturbation(x0, x, epsilon)
    last.index_copy_(0, remaining.rows, x.raw)
    with torch.no_grad():
        remaining(x)
    remaining.leave()
    return last


def _only(values: Any, places: Tensor) -> Any:
    return ep.astensor(values.raw.index_select(0, places))


def _keep_only(optimizer: Any, places: Tensor) -> None:
    """Let an optimizer forget what it sums up of the others."""
    for name, value in vars(optimizer).items():
        if isinstance(value, ep.Tensor):
            setattr(optimizer, name, _only(value, places))


def scatter(attack: Any, problem: Problem, epsilon: float) -> Tensor:
    """The way of `foolbox.attacks.additive_noise.BaseRepeatedAdditiveNoiseAttack`.

    Args:
        attack: one of that class.
        problem: what is attacked.
        epsilon: its epsilon.

    Returns:
        What broke each example by the largest margin, or else the input.
    """
    remaining, x0 = Remaining(problem), ep.astensor(problem.inputs)
    with torch.no_grad():
        for _ in range(attack.repeats):
            if bool(remaining.catch.found.all()):
                break
            noise = attack.sample_noise(x0)
            factors = attack.get_epsilons(x0, noise, epsilon, min_=BOX.lower, max_=BOX.upper)
            remaining(_only((x0 + factors * noise).clip(*BOX), remaining.rows))
            remaining.leave()
    return remaining.catch.best
