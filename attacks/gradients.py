"""Descent on the logit margin by the model's own gradients, alone or averaged.

A descent that starts at the input and takes all its steps is traced: the columns of
`attacks.searching.traces` tell a defense that withstands from a gradient that misleads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from bench.api import Attack, Cost, Proposal
from bench.attacks.bridging import check_positive
from bench.errors import UsageError
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.api import Problem
    from bench.attacks.searching.descent import Look, Search


#: The steps of a traced descent, relative to epsilon.
TRACED = (0.1,) * 40


@register_attack("margin-pgd")
class MarginPGD(Attack):
    """PGD on the logit margin, from the input and then from random points of the ball.

    The first descent takes 40 equal steps of a tenth of epsilon and is traced. In the others, for
    what is not broken yet, the step falls to 0 along half a cosine. The best iterate is kept.

    Args:
        steps: gradient steps of each restart.
        rel_stepsize: size of a restart's first step relative to epsilon.
        restarts: descents after the first.
    """

    summary = "Gradient descent on the logit margin, with restarts and a trace of its path"
    norms = frozenset({Norm.LINF, Norm.L2})

    def __init__(self, *, steps: int = 25, rel_stepsize: float = 1.0, restarts: int = 10) -> None:
        check_positive(steps=steps, rel_stepsize=rel_stepsize, restarts=restarts)
        self.steps, self.rel_stepsize, self.restarts = steps, rel_stepsize, restarts

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every descent, for an example that does not break."""
        first = Cost(len(TRACED) + 1, len(TRACED))
        return Cost(self.steps + 1, self.steps) * self.restarts + first

    def run(self, problem: Problem) -> Proposal:
        """Search; `extra` has the columns of `attacks.searching.traces.trace`.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.searching.descent import OwnGradient, Search, cosine
        from bench.attacks.searching.streams import Streams

        search = Search(problem)
        look = OwnGradient(problem.model, problem.labels)
        columns = _traced(search, look, TRACED)
        sizes = cosine(self.steps, self.rel_stepsize)
        search.restart(Streams(problem, "restarts"), sizes, look, self.restarts)
        return Proposal(search.best, extra=columns)


class Averaging(NamedTuple):
    """How an averaged-gradient descent spends its passes."""

    steps: int
    rel_stepsize: float
    pairs: int
    """Antithetic pairs of points around each iterate."""


AVERAGING = {"light": Averaging(20, 0.2, 10), "full": Averaging(50, 0.1, 50)}


@register_attack("averaged-pgd")
class AveragedPGD(Attack):
    """PGD on the mean gradient at random points around the iterate (Pintor et al., NeurIPS 2022).

    Averaging smooths a gradient that is right on average and noisy at each point. The points are
    Gaussian, sigma is epsilon, and they are not clipped to the box.

    Args:
        preset: `full` is the attack on k-WTA of IndicatorsOfAttackFailure, in units of epsilon:
            50 steps of 0.1, 50 antithetic pairs each. `light` takes 20 steps of 0.2 with 10 pairs.
    """

    summary = "Gradient descent on the margin, gradients averaged around each iterate"
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

        from bench.attacks.searching.descent import Search
        from bench.attacks.searching.probes import AveragedGradient
        from bench.attacks.searching.streams import Streams

        steps, size, pairs = self.averaging
        search = Search(problem)
        streams = Streams(problem, "averaged gradients")
        look = AveragedGradient(problem, streams, search.ball.radius, [2 * pairs] * steps)
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
    norms = frozenset({Norm.LINF, Norm.L2})

    def __init__(self, *, draws: int = 20, steps: int = 40, rel_stepsize: float = 0.3) -> None:
        check_positive(draws=draws, steps=steps, rel_stepsize=rel_stepsize)
        self.draws, self.steps, self.rel_stepsize = draws, steps, rel_stepsize

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw of every step."""
        return Cost(self.steps + 1, self.steps) * self.draws

    def run(self, problem: Problem) -> Proposal:
        """Search; `extra` has the columns of `attacks.searching.traces.trace`.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.searching.descent import Search, cosine
        from bench.attacks.searching.draws import OverDraws

        search = Search(problem)
        sizes = cosine(self.steps, self.rel_stepsize)
        columns = _traced(search, OverDraws(problem, self.draws), sizes)
        return Proposal(search.best, extra=columns)


def _traced(search: Search, look: Look, sizes: Sequence[float]) -> dict[str, Any]:
    """Descend from the inputs with all examples to the end; the columns of the trace."""
    import torch

    from bench.attacks.searching.traces import trace

    inputs = search.problem.inputs
    rows = torch.arange(len(inputs), device=inputs.device)
    return trace(search.descend(inputs, rows, sizes, look, leave=False))
