"""Foolbox's attacks on gradients: a class here is a row of a table, its name fits every norm.

Foolbox has a class per norm; which one runs follows from the norm of the threat model. How its
attacks are called, and what is mended on the way, is in `attacks.bridging.adapter`.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from attacks.bridging import check_positive
from attacks.bridging.adapter import STARTING, FoolboxAttack, each_norm
from bench.api import Cost
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

LINF, L2, L1 = Norm.LINF, Norm.L2, Norm.L1


@register_attack("fgsm")
class FGSM(FoolboxAttack):
    """Fast gradient sign method (Goodfellow et al., ICLR 2015): one step of size epsilon."""

    summary = "One gradient step of size epsilon"
    implementations = each_norm("{}FastGradientAttack", LINF, L2, L1)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """One step, and the check of its end."""
        return Cost(2, 1)


@register_attack("pgd")
class PGD(FoolboxAttack):
    """Projected gradient descent on the cross-entropy, random start (Madry et al., ICLR 2018).

    The step is a tenth of epsilon: with Foolbox's own, a thirtieth, 40 steps cannot cross the ball.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
        restarts: how often it runs, each from its own random start.
    """

    summary = "Projected gradient descent from a random start"
    implementations = each_norm("{}ProjectedGradientDescentAttack", LINF, L2, L1)

    def __init__(self, *, steps: int = 40, rel_stepsize: float = 0.1, restarts: int = 1) -> None:
        check_positive(steps=steps, rel_stepsize=rel_stepsize, restarts=restarts)
        self.steps, self.rel_stepsize, self.restarts = steps, rel_stepsize, restarts

    def options(self, norm: Norm) -> dict[str, Any]:
        """The schedule of the steps."""
        return {"steps": self.steps, "rel_stepsize": self.rel_stepsize, "random_start": True}

    def build(self, norm: Norm) -> Any:
        """The Foolbox attack, repeated where there are restarts."""
        attack = super().build(norm)
        return attack.repeat(self.restarts) if self.restarts > 1 else attack

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
    implementations = each_norm("{}AdamProjectedGradientDescentAttack", LINF, L2, L1)


@register_attack("mi-fgsm")
class MIFGSM(FoolboxAttack):
    """Momentum iterative fast gradient sign method (Dong et al., CVPR 2018), momentum 1.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
    """

    summary = "Gradient descent with momentum, from the input"
    implementations = each_norm("{}MomentumIterativeFastGradientMethod", LINF, L2, L1)

    def __init__(self, *, steps: int = 10, rel_stepsize: float = 0.2) -> None:
        check_positive(steps=steps, rel_stepsize=rel_stepsize)
        self.steps, self.rel_stepsize = steps, rel_stepsize

    def options(self, norm: Norm) -> dict[str, Any]:
        """The schedule of the steps."""
        return {"steps": self.steps, "rel_stepsize": self.rel_stepsize}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step, and the check of the end."""
        return Cost(self.steps + 1, self.steps)


@register_attack("sparse-l1-descent")
class SparseL1Descent(MIFGSM):
    """Sparse L1 descent, SLIDE (Tramèr and Boneh, NeurIPS 2019): moves the top 1 % of pixels.

    Args:
        steps: gradient steps.
        rel_stepsize: size of a step relative to epsilon.
    """

    summary = "L1 descent along the pixels of the largest gradient (SLIDE)"
    implementations: ClassVar[Mapping[Norm, str]] = {L1: "SparseL1DescentAttack"}


class MinimumAttack(FoolboxAttack):
    """A Foolbox attack that searches the smallest perturbation; its gradient steps are alike.

    Args:
        steps: gradient steps.
    """

    kind = "minimum"

    def __init__(self, *, steps: int = 100) -> None:
        check_positive(steps=steps)
        self.steps = steps

    def options(self, norm: Norm) -> dict[str, Any]:
        """The number of steps."""
        return {"steps": self.steps}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step, and the check of the end."""
        return Cost(self.steps + 1, self.steps)


@register_attack("ddn")
class DDN(MinimumAttack):
    """Decoupled direction and norm (Rony et al., CVPR 2019).

    Args:
        steps: gradient steps.
    """

    summary = "Smallest L2 perturbation, direction and norm searched apart"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "DDNAttack"}


@register_attack("fmn")
class FMN(MinimumAttack):
    """Fast minimum norm (Pintor et al., NeurIPS 2021).

    Where inputs lie at the borders of the box, its ball can stop growing short of the decision
    boundary (a third of digits in L2). What it leaves unbroken gets a second run from an
    adversarial point, the other start of the paper.

    Args:
        steps: gradient steps.
    """

    summary = "Smallest perturbation by gradient steps in a ball that shrinks and grows"
    starts = "failed"
    implementations: ClassVar[Mapping[Norm, str]] = {
        L2: "L2FMNAttack",
        LINF: "LInfFMNAttack",
        L1: "L1FMNAttack",
    }

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Both runs, the bisection of the second, and its starting point."""
        return Cost(2 * self.steps + 13 + STARTING, 2 * self.steps)


@register_attack("deepfool")
class DeepFool(MinimumAttack):
    """DeepFool (Moosavi-Dezfooli et al., CVPR 2016), over the ten most likely classes.

    Args:
        steps: linearisations at most; it ends when every example of the batch is adversarial.
    """

    summary = "Smallest perturbation by stepping over linearised class borders"
    implementations = each_norm("{}DeepFoolAttack", L2, LINF)

    def __init__(self, *, steps: int = 50) -> None:
        super().__init__(steps=steps)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """A forward and a backward for each other class in each step."""
        others = min(classes, 10) - 1
        return Cost(self.steps * others + 2, self.steps * others)


class PenaltyAttack(FoolboxAttack):
    """Minimises distance plus a penalty for being right, whose weight is searched by bisection.

    Args:
        preset: `light` searches 5 weights in 100 steps each, `full` 9 in 10,000 as Foolbox does.
    """

    kind = "minimum"
    forwards_per_step: ClassVar[int] = 1

    def __init__(self, *, preset: Literal["light", "full"] = "light") -> None:
        self.weights, self.steps = (5, 100) if preset == "light" else (9, 10_000)

    def options(self, norm: Norm) -> dict[str, Any]:
        """The two nested loops."""
        return {"binary_search_steps": self.weights, "steps": self.steps}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step of every weight, and the check of the end; it often stops earlier."""
        steps = self.weights * self.steps
        return Cost(steps * self.forwards_per_step + 1, steps)


@register_attack("cw")
class CarliniWagner(PenaltyAttack):
    """Carlini and Wagner's L2 attack (S&P 2017).

    Args:
        preset: `light` searches 5 weights in 100 steps each, `full` 9 in 10,000 as Foolbox does.
    """

    summary = "Smallest L2 perturbation by Adam on a penalty (Carlini and Wagner)"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "L2CarliniWagnerAttack"}


@register_attack("ead")
class EAD(PenaltyAttack):
    """Elastic-net attack (Chen et al., AAAI 2018).

    Args:
        preset: `light` searches 5 weights in 100 steps each, `full` 9 in 10,000 as Foolbox does.
    """

    summary = "Smallest elastic-net perturbation (L1 and L2) by shrinkage"
    implementations: ClassVar[Mapping[Norm, str]] = {L1: "EADAttack"}
    forwards_per_step = 2


@register_attack("brendel-bethge")
class BrendelBethge(MinimumAttack):
    """Brendel and Bethge's gradient attack along the boundary (NeurIPS 2019); needs numba.

    Args:
        steps: gradient steps.
    """

    summary = "Smallest perturbation by following the decision boundary with gradients"
    starts = "always"
    implementations: ClassVar[Mapping[Norm, str]] = {
        L2: "L2BrendelBethgeAttack",
        LINF: "LinfinityBrendelBethgeAttack",
        L1: "L1BrendelBethgeAttack",
    }

    def __init__(self, *, steps: int = 1000) -> None:
        super().__init__(steps=steps)

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """It cannot run without numba."""
        if importlib.util.find_spec("numba") is None:
            return "needs numba, which is not installed (pip install numba)"
        return super().why_not(norm=norm, shape=shape, classes=classes)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every step, the way to the boundary, and the starting point."""
        return Cost(self.steps + 12 + STARTING, self.steps)
