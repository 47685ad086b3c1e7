"""Auto-PGD (Croce and Hein, ICML 2020; in L1 their "Mind the box", ICML 2021), a radius a row.

Gradient steps whose size halves where the loss stops rising, from the best point so far. In L1 the
steps are sparse, and go through balls of three times and twice the radius first. Settings are those
of AutoAttack's standard version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from bench.attacks.blocks.ball import Streams
from bench.attacks.blocks.batches import State
from bench.attacks.blocks.keeping import pace, some
from bench.attacks.blocks.levels import into_l1
from bench.attacks.blocks.spending import STEPS, balls
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.attacks.blocks.catch import Catch
    from bench.attacks.blocks.objectives import Objective

#: The steps between checks: the first, by how many they fall each time, and the fewest; of 100.
CHECKS = (0.22, 0.03, 0.06)
#: The share of steps that have to raise the loss, or the size is halved.
RISING = 0.75
#: How much a step is its own; the rest is the one before.
OWN = 0.75
#: In L1: the share of the coordinates that moved which move next, how much sparser the best point
#: has to become for large steps, by what others shrink, and how far at most.
SPARSER, SPARSE, SHRINK, LEAST = 1 / 1.5, 0.95, 1.5, 0.1
#: An L1 ball is taken so much smaller, that no rounding leads out of it.
INNER = 1 - 1e-6


@dataclass
class Climb(State):
    """Where Auto-PGD is with each row."""

    targets: Tensor
    """Int64 (M,): the class to go towards, for a targeted loss."""
    phase: Tensor
    """Int64 (M,): in which ball."""
    clock: Tensor
    """Int64 (M,): steps made in it."""
    x: Tensor
    """(M, C, H, W)."""
    before: Tensor
    """The point before the last step."""
    best: Tensor
    """The point of the highest loss in this ball."""
    slope: Tensor
    """The gradient there."""
    loss: Tensor
    """(M,): the loss there."""
    last: Tensor
    """(M,): the loss at the point before."""
    size: Tensor
    """(M,): of a step, relative to the radius."""
    rises: Tensor
    """Int64 (M,): steps since the last check that raised the loss."""
    checked: Tensor
    """(M,): the highest loss at the last check; in L1 how many coordinates had moved there."""
    halved: Tensor
    """Bool (M,): whether the last check halved the size."""


class AutoPGD:
    """Searches for rows by Auto-PGD: see `bench.attacks.blocks.batches.Stepwise`.

    Args:
        catch: of a problem with an epsilon; what is found is kept there.
        objective: the loss.
        purpose: the random starts of different purposes are independent.
        kinds: the random starts of each row, by number: a copy each.
        targets: the class of each copy, int64 (copies, N), for a targeted loss.
    """

    def __init__(
        self,
        catch: Catch,
        objective: Objective,
        purpose: str,
        kinds: Sequence[int],
        targets: Tensor | None = None,
    ) -> None:
        self.catch, self.problem = catch, catch.problem
        self.objective, self.purpose, self.kinds = objective, purpose, kinds
        self.copies = len(kinds)
        self.targets = targets
        self.pace = pace(self.problem.inputs)
        self._entered = False
        """Whether rows have entered that were not asked about yet."""
        self._flat: Tensor | None = None
        self.sparse = self.problem.norm is Norm.L1
        device = self.problem.inputs.device
        wide, shares = zip(*balls(self.problem.norm), strict=True)
        self._wide = torch.tensor(wide, device=device)
        self._steps = torch.tensor([round(share * STEPS) for share in shares], device=device)
        self._every = _checks().to(device)

    @property
    def flat(self) -> bool:
        """Whether some row has a zero gradient at its start."""
        return self._flat is not None and bool(self._flat)

    def enter(self, rows: Tensor) -> Climb:
        """See `Stepwise`; all copies of a row are side by side."""
        self._entered = True
        part = self.problem.part(rows)
        draws = [Streams(part, f"{self.purpose} {kind}") for kind in self.kinds]
        every = torch.arange(len(rows), device=rows.device)
        if self.problem.norm is Norm.LINF:
            noise = torch.stack([2 * stream.uniform() - 1 for stream in draws], dim=1)
        else:
            noise = torch.stack([stream.normal(every, 1)[:, 0] for stream in draws], dim=1)
        rows = rows.repeat_interleave(self.copies)
        zero = torch.zeros_like(rows)
        targets = zero
        if self.targets is not None:
            targets = self.targets[:, rows[:: self.copies]].T.flatten()
        x = self._start(rows, noise.flatten(0, 1))
        low = torch.full(rows.shape, -torch.inf, device=x.device)
        return Climb(
            rows, targets, zero, zero, x, x, x, torch.zeros_like(x),
            low, low, low, zero, low, zero == 0,
        )  # fmt: skip

    def ended(self, state: Climb) -> Tensor:
        """See `Stepwise`."""
        last = (state.phase == len(self._steps) - 1) & (state.clock > self._steps[-1])
        return last | self.catch.settled.index_select(0, state.rows)

    def step(self, state: Climb) -> None:
        """Ask the model, and go on: from the best point where the loss has stopped rising."""
        loss, gradient = self._ask(state)
        start = state.clock == 0
        higher = start | (loss > state.loss)
        state.rises = torch.where(start, 0, state.rises + (loss > state.last))
        state.last, state.loss = loss, torch.where(higher, loss, state.loss)
        state.best = _where(higher, state.x, state.best)
        state.slope = _where(higher, gradient, state.slope)
        again = self._coordinates(state, start) if self.sparse else self._halve(state, start)
        if some(again):
            state.x = _where(again, state.best, state.x)
            gradient = _where(again, state.slope, gradient)
        moved = self._moved(state, gradient)
        state.before, state.x = state.x, moved
        state.clock = state.clock + 1
        if self.sparse:
            self._next_ball(state)

    def _ask(self, state: Climb) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = state.x.detach().requires_grad_()
            logits = self.problem.model(x)
            loss = self.objective(logits, self.problem.labels[state.rows], state.targets)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
        going = None if self.pace == 1 else ~self.ended(state)
        self.catch.offer(state.rows, x.detach(), logits.detach(), going)
        if self._entered:
            zero = (gradient.flatten(1) == 0).all(dim=1)
            flat = (zero & (state.clock == 0)).any()
            self._flat = flat if self._flat is None else self._flat | flat
            self._entered = False
        return loss.detach(), gradient.nan_to_num(0.0, 0.0, 0.0)

    def _start(self, rows: Tensor, noise: Tensor) -> Tensor:
        """On the border of the ball, within the box."""
        inputs, norm = self.problem.inputs[rows], self.problem.norm
        if norm is Norm.L1:
            return into_l1(inputs, inputs + noise, self._radii(rows, self._wide[0]))
        size = _norms(norm, noise)
        return (inputs + _wide(self._radii(rows) / (size + 1e-12), noise) * noise).clamp(0, 1)

    def _radii(self, rows: Tensor, times: Tensor | float = 1.0) -> Tensor:
        radii = self.catch.radii[rows].float() * times
        return radii * INNER if self.sparse else radii

    def _halve(self, state: Climb, start: Tensor) -> Tensor:
        """Where the size is halved: section 3.1. The rows that go on from their best point."""
        state.size = torch.where(start, 2.0, state.size)
        state.checked = torch.where(start, state.loss, state.checked)
        steps = self._every[state.clock.clamp(max=STEPS)]
        due = steps > 0
        if not some(due):
            return due
        stuck = state.rises <= RISING * steps
        stuck |= ~state.halved & (state.checked >= state.loss)
        stuck &= due
        state.halved = torch.where(due, stuck, state.halved)
        state.checked = torch.where(due, state.loss, state.checked)
        state.rises = torch.where(due, 0, state.rises)
        state.size = torch.where(stuck, state.size / 2, state.size)
        return stuck

    def _coordinates(self, state: Climb, start: Tensor) -> Tensor:
        """In L1 after each step: large ones where the best point became sparser."""
        moved = (state.best != self.problem.inputs[state.rows]).flatten(1).sum(dim=1).float()
        sparser = (moved / state.checked < SPARSE) & ~start
        size = torch.where(sparser, 1.0, state.size / SHRINK).clamp(LEAST, 1.0)
        state.size = torch.where(start, 1.0, size)
        state.checked = moved
        return sparser

    def _moved(self, state: Climb, gradient: Tensor) -> Tensor:
        norm, x = self.problem.norm, state.x
        inputs, radii = self.problem.inputs[state.rows], self._radii(state.rows)
        if norm is Norm.L1:
            radii = self._radii(state.rows, self._wide[state.phase])
            share = state.checked * SPARSER / inputs[0].numel()
            stride = _wide(state.size * radii, x) * _sparse_signs(gradient, share)
            return into_l1(inputs, x + stride, radii)
        stride = gradient.sign() if norm is Norm.LINF else _unit(gradient)
        straight = _within(norm, inputs, x + _wide(state.size * radii, x) * stride, radii)
        own = _wide(torch.where(state.clock == 0, 1.0, OWN), x)
        bent = x + own * (straight - x) + (1 - own) * (x - state.before)
        return _within(norm, inputs, bent, radii)

    def _next_ball(self, state: Climb) -> None:
        """After the last step in a ball, from the best point of it into the next."""
        over = (state.clock > self._steps[state.phase]) & (state.phase < len(self._steps) - 1)
        if not some(over):
            return
        state.phase = state.phase + over
        state.clock = torch.where(over, 0, state.clock)
        radii = self._radii(state.rows, self._wide[state.phase])
        inputs = self.problem.inputs[state.rows]
        state.x = _where(over, into_l1(inputs, state.best, radii), state.x)


def _checks() -> Tensor:
    """At each clock the steps since the check before, if there is a check; else 0."""
    first, fall, fewest = (max(int(share * STEPS), 1) for share in CHECKS)
    every, at, gap = torch.zeros(STEPS + 1, dtype=torch.int64), first, first
    while at <= STEPS:
        every[at] = gap
        gap = max(gap - fall, fewest)
        at += gap
    return every


def _sparse_signs(gradient: Tensor, share: Tensor) -> Tensor:
    """The signs of this share of the coordinates, the steepest ones, of L1 size 1."""
    size = gradient.abs().flatten(1)
    place = ((1 - share) * size.shape[1]).clamp(0, size.shape[1] - 1).long()
    least = size.sort(dim=1).values.gather(1, place[:, None])
    signs = gradient.flatten(1).sign() * (size >= least)
    return (signs / (signs.abs().sum(dim=1, keepdim=True) + 1e-10)).reshape(gradient.shape)


def _within(norm: Norm, inputs: Tensor, x: Tensor, radii: Tensor) -> Tensor:
    wide = _wide(radii, x)
    if norm is Norm.LINF:
        return torch.minimum(torch.maximum(x, inputs - wide), inputs + wide).clamp(0, 1)
    delta = x - inputs
    shrink = (radii / (_norms(norm, delta) + 1e-12)).clamp(max=1)
    return (inputs + _wide(shrink, x) * delta).clamp(0, 1)


def _unit(x: Tensor) -> Tensor:
    return x / _wide(_norms(Norm.L2, x) + 1e-12, x)


def _norms(norm: Norm, x: Tensor) -> Tensor:
    flat = x.flatten(1)
    if norm is Norm.LINF:
        return flat.abs().amax(dim=1)
    return flat.square().sum(dim=1).sqrt()


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """(M,) to be multiplied with (M, C, H, W)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _where(which: Tensor, x: Tensor, other: Tensor) -> Tensor:
    return torch.where(_wide(which, x), x, other)
