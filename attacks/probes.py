"""Probes: they measure a defense instead of attacking it, and propose the inputs themselves.

What they measure stands in columns of `Proposal.extra`, one value per example; `bench.trust`
reads evidence from them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from bench.api import Attack, Cost, Proposal
from bench.errors import NonFiniteLogitsError, check_positive, is_out_of_memory
from bench.registry import register_attack

if TYPE_CHECKING:
    from bench.api import Problem
    from bench.threat import Norm

#: The distance of central differences, in units of the standard deviation of their directions:
#: short of most kinks of an honest model, and far enough for the jumps of a masked one.
STEP = 0.003
#: Where directions are cut off, so that no difference leaves the box.
CUT = 3.0


class Probe(Attack):
    """A measurement of every example."""

    scope = "evidence"
    examination = ("",)

    @property
    def columns(self) -> tuple[str, ...]:
        """What it measures: `traces`, and what it knows only when it is made."""
        return self.traces

    @abstractmethod
    def measure(self, problem: Problem) -> dict[str, Any]:
        """One array of length N for each of `columns`, but `unmeasured`.

        Raises:
            NonFiniteLogitsError: the model answered some input with NaN or infinity.
        """

    def run(self, problem: Problem) -> Proposal:
        """Measure; what cannot be measured is NaN, and `extra["unmeasured"]` is 1 there."""
        return Proposal(problem.inputs.clone(), extra=self._measured(problem))

    def _measured(self, problem: Problem) -> dict[str, Any]:
        """Halve the batch where NaN spoils it, down to the examples that cannot be measured."""
        import numpy as np
        import torch

        n = len(problem.inputs)
        try:
            return {**self.measure(problem), "unmeasured": np.zeros(n)}
        except NonFiniteLogitsError:
            if n == 1:
                return {name: np.full(1, np.nan) for name in self.columns} | {
                    "unmeasured": np.ones(1)
                }
        rows = torch.arange(n, device=problem.inputs.device)
        halves = [self._measured(problem.part(part)) for part in (rows[: n // 2], rows[n // 2 :])]
        return {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}


@register_attack("probe-gradients")
class ProbeGradients(Probe):
    """Does the gradient say how the model changes?

    `fidelity` is the correlation, over Gaussian directions u, of central differences of the logit
    margin z_y - max z_j at distance 0.003 u with the inner product of its gradient and u: 1 for a
    smooth model, near 0 where the gradient says nothing. It is taken beside the input, at a point
    without ties and inside the box (`bench.attacks.blocks.ball.untied`), so that a model that pools
    or clips is not blamed for it; an all-zero gradient has 0.

    A randomised model is measured by its mean logits over 10 draws, the same at both ends of a
    difference.

    At the input itself: `no_gradient` (none can be computed, or it is not finite),
    `zero_margin_gradient` and `zero_ce_gradient` (zero in every pixel; Athalye et al., ICML 2018).

    Args:
        directions: for the correlation.
    """

    summary = "Measures whether gradients tell how the model changes"
    version = 2
    traces = ("fidelity", "no_gradient", "zero_margin_gradient", "zero_ce_gradient", "unmeasured")

    def __init__(self, *, directions: int = 32) -> None:
        check_positive(directions=directions)
        self.directions = directions

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Two forwards a direction, and three gradients."""
        return Cost(2 * self.directions + 3, 3)

    def measure(self, problem: Problem) -> dict[str, Any]:
        """See the class."""
        import numpy as np
        from torch.nn import functional

        from bench.api.attacks import margins
        from bench.attacks.blocks.ball import untied
        from bench.attacks.blocks.looks import over_draws

        problem = over_draws(problem)

        def cross_entropy(logits: Any, labels: Any) -> Any:
            return functional.cross_entropy(logits, labels, reduction="none")

        beside = untied(problem)
        slope, usable = gradient(problem, beside, margins)
        fidelity = self._fidelity(problem, beside, slope)
        fidelity[~usable.cpu().numpy()] = np.nan
        at_input, has_margin = gradient(problem, problem.inputs, margins)
        of_ce, has_ce = gradient(problem, problem.inputs, cross_entropy)
        flat, flat_ce = _zero(at_input) & has_margin, _zero(of_ce) & has_ce
        return {
            "fidelity": fidelity,
            "no_gradient": (~has_margin).cpu().numpy(),
            "zero_margin_gradient": flat.cpu().numpy(),
            "zero_ce_gradient": flat_ce.cpu().numpy(),
        }

    def _fidelity(self, problem: Problem, x: Any, slope: Any) -> Any:
        """Correlations, float64 (N,); 0 for a zero gradient, NaN for constant differences."""
        import numpy as np
        import torch

        from bench.api.attacks import margins
        from bench.attacks.blocks.ball import Streams

        streams, rows = Streams(problem, "fidelity"), torch.arange(len(x))
        seen, told = [], []
        for _ in range(self.directions):
            direction = streams.normal(rows, 1)[:, 0].clamp(-CUT, CUT)
            with torch.no_grad():
                ahead = margins(problem.model(x + STEP * direction), problem.labels)
                behind = margins(problem.model(x - STEP * direction), problem.labels)
            seen.append(ahead.double() - behind.double())
            told.append((slope.double() * direction.double()).flatten(1).sum(dim=1))
        found = correlation(torch.stack(seen).cpu().numpy(), torch.stack(told).cpu().numpy())
        return np.where(_zero(slope).cpu().numpy(), 0.0, found)


@register_attack("probe-behaviour")
class ProbeBehaviour(Probe):
    """Does the model give one answer to one input, and what kind of answer?

    Every column is per example. Repeated calls: `prediction_flips_repeat` (how many of them name
    another class than the first), `logits_differ_repeat` (normalised logits differ by more than
    1e-4 in L2, as AutoAttack checks), `state_differs` (so do those of two calls with the same
    random seeds: something but chance changed). With the same seeds as the first call,
    `prediction_differs_alone` and `prediction_differs_shuffled` (in two batches of other
    examples). `optimises_in_forward`, `probability_output`, `one_hot_output`.

    Around the input: `nonfinite_near` (NaN or infinity at one of 10 draws from the ball, at two of
    its corners, or at corners of the box), `unstable` (mean of |ΔL| / |L| over 100 uniform draws
    within 0.01, at most 1, L the logit margin: Pintor et al., NeurIPS 2022; here ΔL is the mean of
    two opposite draws, which a slope leaves at 0, around a point without ties, and L the larger of
    the margins there and at the input; that of the mean logits over 10 draws where the model is
    randomised), `input_jump` (how far the margin at the input is from the one that ways of 0.004
    lead back to, of its size or the median size).

    Beyond it: `border_jump` (`bench.attacks.blocks.borders.border_jumps`).

    Args:
        draws: around the input, for `unstable`.
    """

    summary = "Measures whether the model answers the same input alike"
    version = 6
    traces = (
        "prediction_flips_repeat",
        "logits_differ_repeat",
        "state_differs",
        "prediction_differs_alone",
        "prediction_differs_shuffled",
        "optimises_in_forward",
        "probability_output",
        "one_hot_output",
        "nonfinite_near",
        "unstable",
        "input_jump",
        "border_jump",
        "unmeasured",
    )

    def __init__(self, *, draws: int = 100) -> None:
        check_positive(draws=draws)
        self.draws = draws

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Ten calls on the inputs, two in other batches, those around them, and on ways."""
        from bench.attacks.blocks import behaviour
        from bench.attacks.blocks.borders import HALVINGS, WAYS

        return Cost(self.draws + 29 + 2 * behaviour.WAYS + WAYS * (HALVINGS + 2))

    def measure(self, problem: Problem) -> dict[str, Any]:
        """See the class."""
        from bench.attacks.blocks import behaviour
        from bench.attacks.blocks.borders import border_jumps

        answers = behaviour.answers(problem)
        answers |= behaviour.around(problem, self.draws)
        answers["border_jump"] = border_jumps(problem)
        return {name: values.cpu().numpy() for name, values in answers.items()}


def gradient(problem: Problem, x: Any, loss: Any) -> tuple[Any, Any]:
    """The gradient of a loss at `x`, and for which examples there is one: finite, not missing.

    Whatever a backward pass raises means that there is none, but for want of memory.

    Args:
        problem: its model and labels.
        x: shape of the inputs.
        loss: from logits (N, classes) and labels (N,) to (N,).

    Returns:
        Shape of the inputs, zero where there is none; and bool (N,).

    Raises:
        NonFiniteLogitsError: the model answered with NaN or infinity.
    """
    import torch

    none = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    try:
        with torch.enable_grad():
            point = x.clone().requires_grad_()
            value = loss(problem.model(point), problem.labels).sum()
            (found,) = torch.autograd.grad(value, point, allow_unused=True)
    except NonFiniteLogitsError:
        raise
    except Exception as error:  # a model may raise anything
        if is_out_of_memory(error):
            raise
        return none
    if found is None:
        return none
    usable = found.isfinite().flatten(1).all(dim=1)
    return torch.where(usable.reshape(-1, *[1] * (x.ndim - 1)), found, 0).detach(), usable


def correlation(a: Any, b: Any) -> Any:
    """Pearson's correlation along the first axis, NaN where one of the two is constant."""
    import numpy as np

    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    # Scaled first: squares of very large or small numbers overflow.
    scale_a, scale_b = np.abs(a).max(axis=0), np.abs(b).max(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = a / scale_a, b / scale_b
        return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def _zero(slope: Any) -> Any:
    return (slope == 0).flatten(1).all(dim=1)
