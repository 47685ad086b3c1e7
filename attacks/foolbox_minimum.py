"""Foolbox's gradient attacks that search the smallest perturbation, run once for all epsilons."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from bench.api import Cost
from bench.attacks.bridging import check_positive
from bench.attacks.bridging.adapter import STARTING, FoolboxAttack, each_norm
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

LINF, L2, L1 = Norm.LINF, Norm.L2, Norm.L1


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


class Penalties(NamedTuple):
    """How Carlini and Wagner's attack searches the weight of its penalty."""

    weights: int
    """Weights tried, by bisection."""
    steps: int
    """Of Adam, for each weight."""
    first: float = 1e-3
    """The weight that the bisection starts from."""
    impatient: bool = True
    """Whether a weight is given up when the loss of the batch falls too little in a tenth of its
    steps."""


CW = {
    "light": Penalties(5, 100),
    "full": Penalties(9, 10_000),
    "published": Penalties(5, 10, first=0.01),
    "converged": Penalties(9, 1_000, first=0.01, impatient=False),
}


@register_attack("cw")
class CarliniWagner(PenaltyAttack):
    """Carlini and Wagner's L2 attack (S&P 2017), Adam with a learning rate of 0.01.

    Adam moves an arctanh of the pixels, and black and white ones begin where it is all but flat:
    10 steps leave them as they are, and hundreds pass before the loss begins to fall, when all
    presets but `converged` have given up.

    Args:
        preset: `light` searches 5 weights in 100 steps each, `full` 9 in 10,000 as Foolbox does;
            `published` is the setting of the k-WTA paper (Xiao et al., ICLR 2020), 5 in 10 from a
            weight of 0.01; `converged` takes 9 in 1,000 from there, each to its end.
    """

    summary = "Smallest L2 perturbation by Adam on a penalty (Carlini and Wagner)"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "L2CarliniWagnerAttack"}

    def __init__(
        self, *, preset: Literal["light", "full", "published", "converged"] = "light"
    ) -> None:
        self.weights, self.steps, self.first, self.impatient = CW[preset]

    def options(self, norm: Norm) -> dict[str, Any]:
        """The two nested loops, where the outer one starts, and whether the inner one may end."""
        further = {"initial_const": self.first, "abort_early": self.impatient}
        return {**super().options(norm), **further}


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
