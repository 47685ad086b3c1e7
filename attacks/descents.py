"""Descent on the logit margin by the model's own gradients, alone or averaged.

A descent that starts at the input and takes all its steps is traced: the columns of
`bench.attacks.blocks.descent.trace` tell a defense that withstands from a gradient that misleads.

Beside them goes an attack that sees outputs alone and follows the gradient it estimates from them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench.api import TRACES, Attack, Cost, Proposal
from bench.errors import UsageError, check_positive
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.descent import Look, Search

#: The steps of the traced descent, and the size of the first, relative to epsilon.
TRACED, FIRST = 40, 0.15


@register_attack("margin-pgd")
class MarginPGD(Attack):
    """PGD on the logit margin, from the input and then from random points of the ball.

    In each descent the step falls to 0 along half a cosine, and the best iterate is kept. The first
    one takes 40 steps on all examples, from 0.15 epsilon, and is traced; its second half, where the
    steps are small, tells whether the loss follows the gradient.

    Args:
        steps: gradient steps of each restart.
        rel_stepsize: size of a restart's first step relative to epsilon.
        restarts: descents after the first.
    """

    summary = "Gradient descent on the logit margin, with restarts and a trace of its path"
    version = 3
    lowers = "margin"
    strength = "strong"
    traces = TRACES
    spoken = "PGD on the margin"
    examination = ("",)
    planted = ("restarts=3",)
    free = True
    each_row = True
    norms = frozenset({Norm.LINF, Norm.L2})

    def __init__(self, *, steps: int = 25, rel_stepsize: float = 1.0, restarts: int = 8) -> None:
        check_positive(steps=steps, rel_stepsize=rel_stepsize, restarts=restarts)
        self.steps, self.rel_stepsize, self.restarts = steps, rel_stepsize, restarts

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every descent, for an example that does not break."""
        first = Cost(TRACED + 1, TRACED)
        return Cost(self.steps + 1, self.steps) * self.restarts + first

    def run(self, problem: Problem) -> Proposal:
        """Search; `extra` has the columns of `bench.attacks.blocks.descent.trace`.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.descent import OwnGradient, Search, cosine

        search = Search(problem)
        look = OwnGradient(problem.model, problem.labels)
        columns = _traced(search, look, cosine(TRACED, FIRST))
        if len(rows := search.remaining):
            search.keep(rows, *self._restarted(problem.part(rows)))
        return Proposal(search.best, extra=columns)

    def _restarted(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """The best of all restarts for each row, which are made at once, and its margin."""
        import torch

        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import OwnGradient, Search, cosine

        starts = Streams(problem, "restarts", self.restarts).uniform()
        every = torch.arange(len(starts), device=starts.device)
        search = Search(problem.part(every % len(problem.inputs)), self.restarts)
        look = OwnGradient(problem.model, search.problem.labels)
        sizes = cosine(self.steps, self.rel_stepsize)
        search.descend(search.ball.start(starts), every, sizes, look)
        return search.lowest_copies()


class Averaging(NamedTuple):
    """How an averaged-gradient descent spends its passes."""

    steps: int
    rel_stepsize: float
    pairs: int
    """Antithetic pairs of points around each iterate."""


AVERAGING = {"light": Averaging(15, 0.25, 5), "full": Averaging(50, 0.1, 50)}


@register_attack("averaged-pgd")
class AveragedPGD(Attack):
    """PGD on the mean gradient at random points around the iterate (Pintor et al., NeurIPS 2022).

    Averaging smooths a gradient that is right on average and noisy at each point. The points are
    Gaussian, sigma is epsilon, and they are not clipped to the box.

    Args:
        preset: `full` is the attack on k-WTA of IndicatorsOfAttackFailure, in units of epsilon:
            50 steps of 0.1, 50 antithetic pairs each. `light` takes 15 steps of 0.25 with 5 pairs.
    """

    summary = "Gradient descent on the margin, gradients averaged around each iterate"
    version = 3
    approach = "smoothed"
    lowers = "margin"
    each_row = True
    norms = frozenset({Norm.LINF, Norm.L2})

    def __init__(self, *, preset: Literal["light", "full"] = "light") -> None:
        if preset not in AVERAGING:
            raise UsageError(f"preset has to be one of {', '.join(AVERAGING)} (got {preset!r})")
        self.averaging = AVERAGING[preset]

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every point of every step, and one forward for each iterate."""
        points = 2 * self.averaging.pairs * self.averaging.steps
        return Cost(points + self.averaging.steps + 1, points)

    def run(self, problem: Problem) -> Proposal:
        """Search; an example that is broken is left alone.

        Raises:
            AttackError: the problem has no epsilon.
        """
        import torch

        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import Search
        from bench.attacks.blocks.looks import AveragedGradient

        steps, size, pairs = self.averaging
        search = Search(problem)
        streams = Streams(problem, "averaged gradients")
        look = AveragedGradient(problem, streams, search.ball.radii, [2 * pairs] * steps)
        rows = torch.arange(len(problem.inputs), device=problem.inputs.device)
        search.descend(problem.inputs, rows, [size] * steps, look)
        return Proposal(search.best)


@register_attack("eot-pgd")
class EOTPGD(Attack):
    """PGD on the mean margin over draws of a randomised defense (Athalye et al., ICML 2018).

    Expectation over transformation. A draw is a fixed seed of torch's generators, the same at
    every step; the iterate with the lowest mean margin is kept. No example leaves early, because
    a randomised defense is broken by degrees.

    Args:
        draws: forwards and backwards per step.
        steps: gradient steps.
        rel_stepsize: size of the first step relative to epsilon.
    """

    summary = "Gradient descent on the mean margin over fixed draws, for randomised defenses"
    aliases = ("eot",)
    version = 3
    approach = "smoothed"
    lowers = "margin"
    over_draws = True
    each_row = True
    traces = TRACES
    escalation = (("",),)
    norms = frozenset({Norm.LINF, Norm.L2})

    def __init__(self, *, draws: int = 20, steps: int = 40, rel_stepsize: float = 0.3) -> None:
        check_positive(draws=draws, steps=steps, rel_stepsize=rel_stepsize)
        self.draws, self.steps, self.rel_stepsize = draws, steps, rel_stepsize

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw of every step."""
        return Cost(self.steps + 1, self.steps) * self.draws

    def run(self, problem: Problem) -> Proposal:
        """Search; `extra` has the columns of `bench.attacks.blocks.descent.trace`.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.descent import Search, cosine
        from bench.attacks.blocks.looks import OverDraws

        search = Search(problem)
        sizes = cosine(self.steps, self.rel_stepsize)
        columns = _traced(search, OverDraws(problem, self.draws), sizes)
        return Proposal(search.best, extra=columns)


def _traced(search: Search, look: Look, sizes: Sequence[float]) -> dict[str, Any]:
    """Descend from the inputs with all examples to the end; the columns of the trace."""
    import torch

    from bench.attacks.blocks.descent import trace

    inputs = search.problem.inputs
    rows = torch.arange(len(inputs), device=inputs.device)
    return trace(search.descend(inputs, rows, sizes, look, leave=False))


class Spending(NamedTuple):
    """How a gradient-free descent spends its forwards."""

    sigma: float
    """Spread of the points, relative to epsilon."""
    step: float
    """Size of the first step, relative to epsilon."""
    stages: tuple[tuple[int, int], ...]
    """Steps and points per step, one stage after another; two points make an antithetic pair."""
    restarts: int = 1
    """Descents; the first starts at the input, the others at random points of the ball."""
    decay: bool = True
    """Whether the steps fall towards 0 along half a cosine."""
    orthogonal: bool = True
    """Whether the points of a step are made orthogonal (Choromanski et al., ICML 2018)."""
    momentum: float = 0.9
    """What is left of an older estimate after each step."""

    @property
    def steps(self) -> int:
        """All steps of one descent."""
        return sum(steps for steps, _ in self.stages)

    @property
    def points(self) -> list[int]:
        """The points of each step."""
        return [points for steps, points in self.stages for _ in range(steps)]

    @property
    def forwards(self) -> int:
        """Forwards of an example that never breaks: its points, and one for each iterate."""
        return self.restarts * (sum(self.points) + self.steps + 1)


PRESETS = {
    "light": Spending(0.5, 0.5, ((20, 32),)),
    "medium": Spending(0.5, 0.5, ((40, 100), (40, 200)), restarts=2),
    "tramer": Spending(
        1.0,
        0.32,
        ((20, 100), (20, 1_000), (60, 20_000)),
        decay=False,
        orthogonal=False,
        momentum=0.0,
    ),
}


@register_attack("fd-pgd")
class FiniteDifferencePGD(Attack):
    """PGD on finite differences of the logit margin (Tramèr et al., NeurIPS 2020).

    Each example's gradient is the mean of antithetic Gaussian differences of its own margin; the
    points are not clipped to the box. It steps by the sign in Linf, by the normalised estimate in
    L2, and an example is left alone once it is broken. Whichever batch an example comes in, it
    gets the same random numbers.

    Args:
        preset: `tramer` is the published schedule against k-WTA, in units of epsilon (8/255
            there): sigma 1, steps of 0.32, up to 100 of them, with 100 points each for 20 steps,
            1,000 for 20 more, 20,000 for the rest: 1.2 million forwards per example that does not
            break. `light` takes 661: 20 falling steps with 32 points each, sigma 0.5, the
            points of a step orthogonal to one another, and momentum 0.9. `medium` takes 24,000, in
            two descents.
        sigma: spread of the points relative to epsilon; 0 means the preset's.
        restarts: descents, from random points of the ball after the first; 0 means the preset's.
    """

    summary = "Gradient descent on finite differences of the margin, for gradients that mislead"
    version = 3
    lowers = "margin"
    challenge = "finite-differences"
    spoken = "Finite differences"
    access = "black-box"
    each_row = True
    norms = frozenset({Norm.LINF, Norm.L2})

    def __init__(
        self,
        *,
        preset: Literal["light", "medium", "tramer"] = "light",
        sigma: float = 0.0,
        restarts: int = 0,
    ) -> None:
        if preset not in PRESETS:
            raise UsageError(f"preset has to be one of {', '.join(PRESETS)} (got {preset!r})")
        schedule = PRESETS[preset]
        if sigma:
            schedule = schedule._replace(sigma=sigma)
        if restarts:
            schedule = schedule._replace(restarts=restarts)
        check_positive(sigma=schedule.sigma, restarts=schedule.restarts)
        self.schedule = schedule

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every point of every step, for an example that does not break."""
        return Cost(self.schedule.forwards)

    def run(self, problem: Problem) -> Proposal:
        """Search by finite differences. `extra["forwards"]`: what each example took (int64, N).

        Raises:
            AttackError: the problem has no epsilon.
        """
        import torch

        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import Momentum, Search, cosine
        from bench.attacks.blocks.looks import FiniteDifferences

        schedule = self.schedule
        search = Search(problem)
        streams = Streams(problem, "finite differences")
        differences = FiniteDifferences(
            problem,
            streams,
            schedule.sigma * search.ball.radii,
            schedule.points,
            orthogonal=schedule.orthogonal,
        )
        look: Look = differences
        if schedule.momentum:
            look = Momentum(differences, problem.inputs, schedule.momentum)
        sizes = [schedule.step] * schedule.steps
        if schedule.decay:
            sizes = cosine(schedule.steps, schedule.step)
        everything = torch.arange(len(problem.inputs), device=problem.inputs.device)
        search.descend(problem.inputs, everything, sizes, look)
        search.restart(streams, sizes, look, schedule.restarts - 1)
        return Proposal(search.best, extra={"forwards": differences.forwards.cpu().numpy()})
