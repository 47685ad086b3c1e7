"""Attacks that see outputs alone and follow the gradient they estimate from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from bench.api import Attack, Cost, Proposal
from bench.attacks.bridging import check_positive
from bench.errors import UsageError
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from bench.api import Problem
    from bench.attacks.searching.descent import Look


class Schedule(NamedTuple):
    """How a gradient-free descent spends its forwards."""

    sigma: float
    """Spread of the probes, relative to epsilon."""
    step: float
    """Size of the first step, relative to epsilon."""
    stages: tuple[tuple[int, int], ...]
    """Steps and probes per step, one stage after another; two probes make an antithetic pair."""
    restarts: int = 1
    """Descents; the first starts at the input, the others at random points of the ball."""
    decay: bool = True
    """Whether the steps fall towards 0 along half a cosine."""
    orthogonal: bool = True
    """Whether the probes of a step are made orthogonal (Choromanski et al., ICML 2018)."""
    momentum: float = 0.9
    """What is left of an older estimate after each step."""

    @property
    def steps(self) -> int:
        """All steps of one descent."""
        return sum(steps for steps, _ in self.stages)

    @property
    def probes(self) -> list[int]:
        """The probes of each step."""
        return [probes for steps, probes in self.stages for _ in range(steps)]

    @property
    def forwards(self) -> int:
        """Forwards of an example that never breaks: its probes, and one for each iterate."""
        return self.restarts * (sum(self.probes) + self.steps + 1)


PRESETS = {
    "light": Schedule(0.5, 0.5, ((40, 40), (20, 64))),
    "medium": Schedule(0.5, 0.5, ((40, 100), (40, 200)), restarts=2),
    "tramer": Schedule(
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
    probes are not clipped to the box. It steps by the sign in Linf, by the normalised estimate in
    L2, and an example is left alone once it is broken. Whichever batch an example comes in, it
    gets the same random numbers.

    Args:
        preset: `tramer` is the published schedule against k-WTA, in units of epsilon (8/255
            there): sigma 1, steps of 0.32, up to 100 of them, with 100 probes each for 20 steps,
            1,000 for 20 more, 20,000 for the rest: 1.2 million forwards per example that does not
            break. `light` takes 3,000: falling steps, 40 with 40 probes and 20 with 64, sigma 0.5,
            the probes of a step orthogonal to one another, and momentum 0.9. `medium` takes eight
            times that, in two descents.
        sigma: spread of the probes relative to epsilon; 0 means the preset's.
        restarts: descents, from random points of the ball after the first; 0 means the preset's.
    """

    summary = "Gradient descent on finite differences of the margin, for gradients that mislead"
    access = "black-box"
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
        """Every probe of every step, for an example that does not break."""
        return Cost(self.schedule.forwards)

    def run(self, problem: Problem) -> Proposal:
        """Search by finite differences. `extra["forwards"]`: what each example took (int64, N).

        Raises:
            AttackError: the problem has no epsilon.
        """
        import torch

        from bench.attacks.searching.descent import Momentum, Search, cosine
        from bench.attacks.searching.probes import FiniteDifferences
        from bench.attacks.searching.streams import Streams

        schedule = self.schedule
        search = Search(problem)
        streams = Streams(problem, "finite differences")
        differences = FiniteDifferences(
            problem,
            streams,
            schedule.sigma * search.ball.radius,
            schedule.probes,
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
