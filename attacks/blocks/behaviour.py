"""How a model answers the same inputs asked again, alone, in other batches, and what it does.

What a model answers close to an input: whether it is finite, and how far it jumps.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench.api.attacks import margins
from bench.attacks.blocks.ball import Ball, Streams, untied
from bench.attacks.blocks.looks import over_draws
from bench.errors import NonFiniteLogitsError
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from bench.api import Problem


REPEATS = 5


#: How far normalised logits may differ (AutoAttack's check of randomised defenses).
ALIKE = 1e-4


#: How far probabilities may be from summing to 1 (AutoAttack's check of the output).
SUMS = 1e-5


def answers(problem: Problem) -> dict[str, Tensor]:
    """What repeated calls on the inputs say; the columns of `ProbeBehaviour`, (N,) each.

    Raises:
        NonFiniteLogitsError: the model answered an input with NaN or infinity.
    """
    inputs, n = problem.inputs, len(problem.inputs)
    first = _ask(problem, inputs.clone())
    with derivatives() as taken, torch.enable_grad():
        problem.model(inputs.clone())
    classes = first.argmax(dim=1)
    torch.manual_seed(problem.seed)
    repeats = [_ask(problem, inputs.clone(), seeded=False) for _ in range(REPEATS)]
    alone = torch.cat([_ask(problem, inputs[i : i + 1].clone()) for i in range(n)])
    shuffled = torch.empty_like(first)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(problem.seed % 2**63))
    for part in (order[: n // 2], order[n // 2 :]):
        if len(part):
            shuffled[part] = _ask(problem, inputs[part].clone())
    again = _ask(problem, inputs.clone())
    return {
        "prediction_flips_repeat": sum(
            ((logits.argmax(dim=1) != classes).long() for logits in repeats), start=classes * 0
        ),
        "logits_differ_repeat": torch.stack([_differ(first, r) for r in repeats]).any(dim=0),
        "state_differs": _differ(first, again),
        "prediction_differs_alone": alone.argmax(dim=1) != classes,
        "prediction_differs_shuffled": shuffled.argmax(dim=1) != classes,
        "optimises_in_forward": torch.full_like(classes, bool(taken)).bool(),
        "probability_output": probabilities(first),
        "one_hot_output": _one_hot(first),
    }


@contextlib.contextmanager
def derivatives() -> Iterator[list[str]]:
    """Watch for calls of autograd's backward; the list fills with their names as they come.

    Those that keep their own graph do not count: attacks differentiate through what they make.
    Both the public functions and the one way into torch's engine are watched, because a module
    may have imported the former before. All are put back on exit.
    """
    calls: list[str] = []
    holders: list[tuple[Any, str]] = [
        (torch.autograd, "grad"),
        (torch.autograd, "backward"),
        (torch.Tensor, "backward"),
    ]
    if hasattr(torch.autograd, "_engine_run_backward"):
        holders.append((torch.autograd, "_engine_run_backward"))
    originals = [(holder, name, getattr(holder, name)) for holder, name in holders]

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if not _keeps_graph(name, args, kwargs):
                calls.append(name)
            return original(*args, **kwargs)

        return call

    try:
        for holder, name, original in originals:
            setattr(holder, name, watched(name, original))
        yield calls
    finally:
        for holder, name, original in originals:
            setattr(holder, name, original)


def _keeps_graph(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call of autograd is to be differentiated itself: its `create_graph`."""
    place = 4 if name == "grad" else 3
    return bool(kwargs.get("create_graph", args[place] if len(args) > place else False))


def _ask(problem: Problem, x: Tensor, *, seeded: bool = True) -> Tensor:
    """Logits in float64; from the problem's seed unless told otherwise."""
    if seeded:
        torch.manual_seed(problem.seed)
        np.random.seed(problem.seed % 2**32)  # noqa: NPY002 - a model may draw from it
        random.seed(problem.seed)
    with torch.no_grad():
        logits: Tensor = problem.model(x).double()
    return logits


def _differ(a: Tensor, b: Tensor) -> Tensor:
    a, b = (x / (x.norm(dim=1, keepdim=True) + 1e-10) for x in (a, b))
    far: Tensor = (a - b).norm(dim=1) > ALIKE
    return far


def probabilities(logits: Tensor) -> Tensor:
    """Which rows look like probabilities instead of logits, bool (N,)."""
    inside: Tensor = ((logits >= -SUMS) & (logits <= 1 + SUMS)).all(dim=1)
    return inside & ((logits.sum(dim=1) - 1).abs() < SUMS)


def _one_hot(logits: Tensor) -> Tensor:
    """One class above the others, which are all alike; of two classes, 0 and 1."""
    ordered = logits.sort(dim=1).values
    if logits.shape[1] == 2:
        return (ordered[:, 0] == 0) & (ordered[:, 1] == 1)
    return (ordered[:, -2] == ordered[:, 0]) & (ordered[:, -1] > ordered[:, 0])


#: Draws from the ball at which the logits have to be finite.
NEAR = 10


#: How far from a point beside the input predictions have to be stable.
CLOSE = 0.01


#: One level of 8 bits: so far at most are the ends of so many ways from an input, along which it
#: has to be answered as it is itself.
LEVEL, WAYS = 0.004, 10


def around(problem: Problem, draws: int) -> dict[str, Tensor]:
    """`nonfinite_near` (bool); `unstable` and `input_jump` (float64, NaN where logits are)."""
    failed = torch.zeros_like(problem.labels).bool()
    for points in _points(problem):
        failed |= ~torch.isfinite(logits_where_finite(problem, points)).all(dim=1)
    problem = over_draws(problem)
    streams, rows = Streams(problem, "unstable"), torch.arange(len(problem.inputs))
    beside = untied(problem)
    with torch.no_grad():
        at_input = margins(problem.model(problem.inputs.clone()).double(), problem.labels)
    middle = margins(logits_where_finite(problem, beside), problem.labels)
    size = torch.maximum(at_input.abs(), middle.abs())
    total = torch.zeros_like(middle)
    pairs = max(1, draws // 2)
    for _ in range(pairs):
        noise = CLOSE * (2 * streams.uniform(rows) - 1)
        ahead, behind = (
            margins(logits_where_finite(problem, beside + sign * noise), problem.labels)
            for sign in (1, -1)
        )
        total += ((ahead + behind) / 2 - middle).abs() / size
    return {
        "nonfinite_near": failed,
        "unstable": (total / pairs).clamp(max=1),
        "input_jump": _input_jumps(problem, at_input),
    }


def _input_jumps(problem: Problem, at_input: Tensor) -> Tensor:
    """How far the margin at each input is from what those beside it lead to, of its size.

    From the end of each way and its middle the margin at the input is extrapolated, which takes
    away a slope and a kink at the input: along a way both are linear. Its size is the margin at the
    input, or the median of all that are right where that is larger.

    Args:
        problem: not randomised.
        at_input: its margins at the inputs, float64 (N,).

    Returns:
        float64 (N,); NaN where the example is wrong.
    """
    streams, rows = Streams(problem, "beside"), torch.arange(len(problem.inputs))
    right = at_input > 0
    if not bool(right.any()):
        return torch.full_like(at_input, torch.nan)
    led_to = torch.zeros_like(at_input)
    for _ in range(WAYS):
        ends = (problem.inputs + LEVEL * (2 * streams.uniform(rows) - 1)).clamp(0, 1)
        middles = (problem.inputs + ends) / 2
        middle, end = (
            margins(logits_where_finite(problem, points), problem.labels)
            for points in (middles, ends)
        )
        led_to += (2 * middle - end) / WAYS
    size = at_input.clamp(min=float(at_input[right].median()))
    return torch.where(right, (led_to - at_input).abs() / size, torch.nan)


def logits_where_finite(problem: Problem, x: Tensor) -> Tensor:
    """Logits in float64, (N, classes); NaN for the examples that the model refuses."""
    with torch.no_grad():
        try:
            logits: Tensor = problem.model(x).double()
            return logits
        except NonFiniteLogitsError:
            if len(x) == 1:
                return x.new_full((1, problem.classes), torch.nan, dtype=torch.float64)
    half = len(x) // 2
    return torch.cat([logits_where_finite(problem, part) for part in (x[:half], x[half:])])


def _points(problem: Problem) -> Iterator[Tensor]:
    """Draws from the ball, two of the corners around it, and three corners of the box."""
    inputs, size = problem.inputs, Ball.of(problem).radius
    streams, rows = Streams(problem, "surroundings"), torch.arange(len(inputs))
    for _ in range(NEAR):
        noise = streams.normal(rows, 1)[:, 0]
        if problem.norm is Norm.LINF:
            noise = 2 * streams.uniform(rows) - 1
        distance = problem.norm.distance(torch.zeros_like(noise), noise).clamp(min=1e-12)
        scale = size
        if problem.norm is not Norm.LINF:
            scale = size / distance.float().reshape(size.shape)
        yield (inputs + noise * scale).clamp(0, 1)
    reach = {Norm.LINF: 1.0, Norm.L2: inputs[0].numel() ** -0.5, Norm.L1: 1 / inputs[0].numel()}
    for _ in range(2):
        signs = (streams.uniform(rows) - 0.5).sign()
        yield (inputs + size * reach[problem.norm] * signs).clamp(0, 1)
    yield torch.zeros_like(inputs)
    yield torch.ones_like(inputs)
    yield (streams.uniform(rows) > 0.5).to(inputs)
