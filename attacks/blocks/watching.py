"""Modules put between a library's attack and the model, to see what the attack does.

What AutoAttack says while it runs, as flags; and the global state that it leaves behind.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from pyautoattack import checks
from torch import nn

from bench.api import Flag
from bench.api.attacks import radii
from bench.errors import AttackError
from bench.threat import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from bench.api import Problem

#: An example is settled when its margin is beyond this share of its largest logit: more than
#: rounding or another batch can move it, so that the judge will find it wrong as well.
SOLID = 0.01


class Guard(nn.Module):
    """The model, with an end to its patience.

    Some of Foolbox's loops end only when the model lets them: HopSkipJump halves its step until
    every example of the batch is adversarial, which a model of random or NaN logits never grants.

    Args:
        model: float32 (N, C, H, W) to logits (N, classes).
        limit: forwards per example after which the attack is stopped.
    """

    def __init__(self, model: nn.Module, limit: float) -> None:
        super().__init__()
        self.model = model
        self.limit = limit
        self.calls = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes).

        Raises:
            AttackError: the limit is reached.
        """
        self.calls += 1
        if self.calls > self.limit:
            raise AttackError(
                f"the attack does not end on this model: stopped after {self.limit:.0f} forwards "
                "per example, far beyond its cost"
            )
        logits: Tensor = self.model(x)
        return logits


class Settled(Exception):  # noqa: N818 - an end, and no error
    """Every example of the batch is settled: nothing is left to ask the model."""


class Recorder(Guard):
    """Remembers, per example, the most confidently wrong input in the ball and the box.

    Libraries return the last iterate, which can be right again although an earlier one was wrong;
    models with misleading gradients do that often. They also go on with what is broken already:
    here an example whose margin is beyond doubt is settled, its logits stay as they were then,
    without a gradient, and the model is asked about the others alone. Not so on a randomised
    defense, where one wrong answer settles nothing.

    Args:
        problem: with an epsilon; its model is asked.
        limit: see `Guard`.

    Attributes:
        found: bool (N,), where some input was adversarial.
        best: the inputs of the problem, replaced by the adversarial one with the largest margin.
        settled: bool (N,), where the search has ended.
    """

    def __init__(self, problem: Problem, limit: float = float("inf")) -> None:
        super().__init__(problem.model, limit)
        self.problem = problem
        self.found = torch.zeros_like(problem.labels, dtype=torch.bool)
        self.best = problem.inputs.clone()
        self.settled = torch.zeros_like(problem.labels, dtype=torch.bool)
        self._left = torch.arange(len(problem.labels), device=problem.labels.device)
        self._labels, self._radii = problem.labels, radii(problem)
        self._margin = torch.full_like(problem.labels, -1.0, dtype=torch.float32)
        self._logits = problem.inputs.new_zeros(len(problem.labels), problem.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes); batches that are not aligned with the problem's are not recorded.

        Raises:
            Settled: every example is.
        """
        if x.shape != self.problem.inputs.shape:
            return super().forward(x)
        rows = self._left
        if len(rows) == 0:
            raise Settled
        whole = len(rows) == len(x)
        part = x if whole else x.index_select(0, rows)
        logits = super().forward(part)
        self._record(part.detach(), logits.detach(), rows)
        return logits if whole else self._logits.index_copy(0, rows, logits)

    def _record(self, x: Tensor, logits: Tensor, rows: Tensor) -> None:
        (wrong,) = torch.where(logits.argmax(dim=1) != self._labels)
        if len(wrong) == 0:  # mostly: what is wrong beyond doubt has left
            return
        problem = self.problem
        logits, rows = logits[wrong], rows[wrong]
        own = logits.gather(1, self._labels[wrong][:, None]).squeeze(1)
        margin = logits.amax(dim=1) - own
        better = margin > self._margin[rows]
        if not better.any():
            return
        x = x[wrong]
        flat = x.flatten(1)
        better &= ((flat >= 0) & (flat <= 1)).all(dim=1)
        better &= problem.norm.distance(problem.inputs[rows], x) <= self._radii[rows] + TOLERANCE
        kept = rows[better]
        self.found[kept] = True
        self.best[kept] = x[better]
        self._margin[kept] = margin[better]
        if problem.randomised:
            return
        solid = better & (margin > SOLID * logits.abs().amax(dim=1))
        if bool(solid.any()):
            self.settled[rows[solid]] = True
            self._logits[rows[solid]] = logits[solid]
            (self._left,) = torch.where(~self.settled)
            self._labels = problem.labels[self._left]


def leave_when_settled(attack: Any, problem: Problem) -> None:
    """Let examples leave an Auto-PGD of pyautoattack once they are settled (see `Recorder`).

    Its outcomes stay what they are: an example does not depend on the others of its batch.

    Args:
        attack: an `APGDAttack`, or a targeted one; changed in place.
        problem: with an epsilon, the radius that counts, whatever larger ones the attack visits.
    """
    search = attack.attack_single_run

    def run(x: Tensor, y: Tensor, x_init: Tensor | None = None) -> tuple[Tensor, ...]:
        model = attack.model
        recorder = Recorder(replace(problem, model=model, inputs=x, labels=y))
        attack.model = recorder
        try:
            best, right, loss, adversarial = search(x, y, x_init=x_init)
        except Settled:
            nothing = torch.zeros_like(y)
            return recorder.best, nothing.bool(), nothing.float(), recorder.best.clone()
        finally:
            attack.model = model
        left = recorder.settled
        best[left], adversarial[left], right[left] = recorder.best[left], recorder.best[left], False
        return best, right, loss, adversarial

    attack.attack_single_run = run


#: A part of each of AutoAttack's warnings (its `checks` module), and the flag that it becomes.
FLAGS = {
    "randomized defense": Flag("autoattack-randomised", "the defense seems to be randomised"),
    "probability distribution": Flag(
        "autoattack-probabilities", "the output looks like probabilities instead of logits"
    ),
    "zero gradient": Flag("autoattack-zero-gradient", "the gradient is zero for some examples"),
    "Square Attack has decreased": Flag(
        "autoattack-square", "Square lowers the accuracy beyond the white-box attacks"
    ),
    "dynamic defense": Flag(
        "autoattack-dynamic", "the defense seems to compute gradients inside its forward pass"
    ),
}


class _Flags(logging.Handler):
    """Collects each warning once, in the order of their arrival."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.flags: list[Flag] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if "classes" in message:  # settled before the run; wrong about APGD-DLR with 3 classes
            return
        known = (flag for part, flag in FLAGS.items() if part in message)
        flag = next(known, Flag("", message.partition(" See ")[0]))
        flag = flag._replace(sentence=f"AutoAttack: {flag.sentence}")
        if flag not in self.flags:
            self.flags.append(flag)


@contextlib.contextmanager
def listening() -> Iterator[list[Flag]]:
    """Collect AutoAttack's warnings as flags while it runs; the list fills as it goes.

    AutoAttack counts the calls of its check for dynamic defenses in a global that it never resets,
    so that one such defense would mark every later one: it starts at 0 here. The check also ends
    with `sys.settrace(None)`: the trace function (of coverage or a debugger) is put back. Nothing
    is printed, and the logger is left as it was found.
    """
    logger = logging.getLogger("auto-attack")
    handler = _Flags()
    level, propagate, trace = logger.level, logger.propagate, sys.gettrace()
    for name in checks.funcs:
        checks.funcs[name] = 0
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield handler.flags
    finally:
        sys.settrace(trace)
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
