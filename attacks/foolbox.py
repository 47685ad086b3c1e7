"""Foolbox's gradient attacks within epsilon: a class here is a row of a table, in every norm.

Foolbox has a class per norm; which one runs follows from the norm of the threat model. How its
attacks are called, and what is mended on the way, is in `bench.attacks.blocks.adapter`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api import Cost, Proposal
from bench.api.attacks import radius
from bench.attacks.blocks.adapter import FoolboxAttack, each_norm
from bench.errors import check_positive
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.api import Problem

LINF, L2, L1 = Norm.LINF, Norm.L2, Norm.L1


class DescentAttack(FoolboxAttack):
    """Gradient steps, each followed by a projection on the ball."""

    restarts = 1

    def run(self, problem: Problem) -> Proposal:
        """Search with Foolbox's steps.

        Raises:
            AttackError: the problem has no epsilon, or several.
        """
        from bench.attacks.blocks.within import descend

        attack, epsilon = self.build(problem.norm), radius(problem)
        return Proposal(descend(attack, problem, epsilon, self.restarts))


@register_attack("fgsm")
class FGSM(DescentAttack):
    """Fast gradient sign method (Goodfellow et al., ICLR 2015): one step of size epsilon."""

    summary = "One gradient step of size epsilon"
    aliases = ("fgm", "fast-gradient-sign-method")
    deterministic = True
    lowers = "cross-entropy"
    strength = "single-step"
    spoken = "FGSM"
    examination = ("",)
    implementations = each_norm("{}FastGradientAttack", LINF, L2, L1)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """One step, and the check of its end."""
        return Cost(2, 1)


@register_attack("pgd")
class PGD(DescentAttack):
    """Projected gradient descent on the cross-entropy, random start (Madry et al., ICLR 2018).

    The step is a tenth of epsilon: with Foolbox's own, a thirtieth, 40 steps cannot cross the ball.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
        restarts: how often it runs, each from its own random start.
    """

    summary = "Projected gradient descent from a random start"
    aliases = ("projected-gradient-descent",)
    lowers = "cross-entropy"
    spoken = "PGD"
    examination: ClassVar[tuple[str, ...]] = ("", "steps=80")
    free = True
    version = 2
    implementations = each_norm("{}ProjectedGradientDescentAttack", LINF, L2, L1)

    def __init__(self, *, steps: int = 40, rel_stepsize: float = 0.1, restarts: int = 1) -> None:
        check_positive(steps=steps, rel_stepsize=rel_stepsize, restarts=restarts)
        self.steps, self.rel_stepsize, self.restarts = steps, rel_stepsize, restarts

    def options(self, norm: Norm) -> dict[str, Any]:
        """The schedule of the steps."""
        return {"steps": self.steps, "rel_stepsize": self.rel_stepsize, "random_start": True}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every restart, and the checks of their ends."""
        return Cost(self.steps + 1, self.steps) * self.restarts


@register_attack("adam-pgd")
class AdamPGD(PGD):
    """Projected gradient descent with Adam's steps (Kingma and Ba, ICLR 2015), random start.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
        restarts: how often it runs, each from its own random start.
    """

    summary = "Projected gradient descent with Adam's steps"
    spoken = ""
    examination = ()
    free = False
    implementations = each_norm("{}AdamProjectedGradientDescentAttack", LINF, L2, L1)


class SteppedAttack(DescentAttack):
    """A Foolbox attack of so many gradient steps from the input, each a share of epsilon.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
    """

    version = 2
    deterministic = True

    def __init__(self, *, steps: int = 10, rel_stepsize: float = 0.2) -> None:
        check_positive(steps=steps, rel_stepsize=rel_stepsize)
        self.steps, self.rel_stepsize = steps, rel_stepsize

    def options(self, norm: Norm) -> dict[str, Any]:
        """The schedule of the steps."""
        return {"steps": self.steps, "rel_stepsize": self.rel_stepsize}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step, and the check of the end."""
        return Cost(self.steps + 1, self.steps)


@register_attack("mi-fgsm")
class MIFGSM(SteppedAttack):
    """Momentum iterative fast gradient sign method (Dong et al., CVPR 2018), momentum 1.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
        accumulate: what the momentum sums up: `gradients`, each scaled to L1 size 1, is the
            published method; `signs` is Foolbox's, which in Linf sums up the signs of gradients
            (in L2 gradients of L2 size 1; in L1 there is no difference).
    """

    summary = "Gradient descent with momentum, from the input"
    aliases = ("mim", "momentum-fgsm")
    lowers = "cross-entropy"
    implementations = each_norm("{}MomentumIterativeFastGradientMethod", LINF, L2, L1)

    def __init__(
        self,
        *,
        steps: int = 10,
        rel_stepsize: float = 0.2,
        accumulate: Literal["signs", "gradients"] = "signs",
    ) -> None:
        super().__init__(steps=steps, rel_stepsize=rel_stepsize)
        self.accumulate = accumulate

    def build(self, norm: Norm) -> Any:
        """Foolbox's attack, or the one that sums up gradients."""
        if self.accumulate == "signs":
            return super().build(norm)
        from bench.attacks.blocks import repairs

        return repairs.MOMENTUM[self.searched(norm)](**self.options(norm))


@register_attack("sparse-l1-descent")
class SparseL1Descent(SteppedAttack):
    """Sparse L1 descent, SLIDE (Tramèr and Boneh, NeurIPS 2019): moves the top 1 % of pixels.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
    """

    summary = "L1 descent along the pixels of the largest gradient (SLIDE)"
    aliases = ("slide",)
    lowers = "cross-entropy"
    implementations: ClassVar[Mapping[Norm, str]] = {L1: "SparseL1DescentAttack"}


@register_attack("uniform-noise")
class UniformNoise(FoolboxAttack):
    """Uniform noise; in L2 scaled so that its size is epsilon after clipping to the box.

    Args:
        draws: how many are tried; an example is broken when one of them breaks it.
    """

    summary = "Uniform noise within epsilon"
    spoken = "Uniform noise"
    examination: ClassVar[tuple[str, ...]] = ("draws=100",)
    version = 2
    access = "noise"
    implementations: ClassVar[Mapping[Norm, str]] = {
        LINF: "LinfRepeatedAdditiveUniformNoiseAttack",
        L2: "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack",
    }

    def __init__(self, *, draws: int = 1) -> None:
        check_positive(draws=draws)
        self.draws = draws

    def run(self, problem: Problem) -> Proposal:
        """Draw, and look.

        Raises:
            AttackError: the problem has no epsilon, or several.
        """
        from bench.attacks.blocks.within import scatter

        return Proposal(scatter(self.build(problem.norm), problem, radius(problem)))

    def options(self, norm: Norm) -> dict[str, Any]:
        """The draws."""
        return {"repeats": self.draws}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw."""
        return Cost(self.draws)


@register_attack("gaussian-noise")
class GaussianNoise(UniformNoise):
    """Gaussian noise, scaled so that its size is epsilon after clipping to the box.

    Args:
        draws: how many are tried; an example is broken when one of them breaks it.
    """

    summary = "Gaussian noise of size epsilon"
    spoken = "Gaussian noise"
    examination = ()
    implementations: ClassVar[Mapping[Norm, str]] = {
        L2: "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack"
    }
