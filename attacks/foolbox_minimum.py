"""Foolbox's gradient attacks that search the smallest perturbation, run once for all epsilons.

Foolbox's attacks without gradients: noise, walks along the boundary, blending.
"""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from bench.api import Cost
from bench.attacks.blocks.adapter import STARTING, MinimumAttack, each_norm
from bench.errors import check_positive
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

LINF, L2, L1 = Norm.LINF, Norm.L2, Norm.L1


class SteppedMinimum(MinimumAttack):
    """A Foolbox attack that searches the smallest perturbation; its gradient steps are alike.

    Args:
        steps: gradient steps.
    """

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
class DDN(SteppedMinimum):
    """Decoupled direction and norm (Rony et al., CVPR 2019).

    Args:
        steps: gradient steps.
    """

    summary = "Smallest L2 perturbation, direction and norm searched apart"
    deterministic = True
    lowers = "cross-entropy"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "DDNAttack"}


@register_attack("fmn")
class FMN(SteppedMinimum):
    """Fast minimum norm (Pintor et al., NeurIPS 2021).

    Where inputs lie at the borders of the box, its ball can stop growing short of the decision
    boundary (a third of digits in L2). What it leaves unbroken gets a second run from an
    adversarial point, the other start of the paper.

    Args:
        steps: gradient steps.
    """

    summary = "Smallest perturbation by gradient steps in a ball that shrinks and grows"
    aliases = ("fast-minimum-norm",)
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
class DeepFool(SteppedMinimum):
    """DeepFool (Moosavi-Dezfooli et al., CVPR 2016), over the ten most likely classes.

    Args:
        steps: linearisations at most; it ends when every example of the batch is adversarial.
    """

    summary = "Smallest perturbation by stepping over linearised class borders"
    deterministic = True
    implementations = each_norm("{}DeepFoolAttack", L2, LINF)

    def __init__(self, *, steps: int = 50) -> None:
        super().__init__(steps=steps)

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """A forward and a backward for each other class in each step."""
        others = min(classes, 10) - 1
        return Cost(self.steps * others + 2, self.steps * others)


class PenaltyAttack(MinimumAttack):
    """Minimises distance plus a penalty for being right, whose weight is searched by bisection.

    Args:
        preset: `light` searches 5 weights in 100 steps each, `full` 9 in 10,000 as Foolbox does.
    """

    deterministic = True
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
    aliases = ("carlini-wagner", "carlini")
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
    aliases = ("elastic-net",)
    implementations: ClassVar[Mapping[Norm, str]] = {L1: "EADAttack"}
    forwards_per_step = 2


@register_attack("brendel-bethge")
class BrendelBethge(SteppedMinimum):
    """Brendel and Bethge's gradient attack along the boundary (NeurIPS 2019); needs numba.

    Args:
        steps: gradient steps.
    """

    summary = "Smallest perturbation by following the decision boundary with gradients"
    aliases = ("bb",)
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


@register_attack("boundary")
class Boundary(MinimumAttack):
    """Boundary attack (Brendel et al., ICLR 2018): a random walk along the boundary.

    Args:
        preset: `brief` walks 300 steps, `light` 2,000, `full` 25,000 as Foolbox does.
    """

    summary = "Smallest L2 perturbation by a random walk along the decision boundary"
    aliases = ("boundary-attack",)
    spoken = "Boundary"
    access = "black-box"
    starts = "always"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "BoundaryAttack"}

    def __init__(self, *, preset: Literal["brief", "light", "full"] = "brief") -> None:
        self.steps = {"brief": 300, "light": 2_000, "full": 25_000}[preset]

    def options(self, norm: Norm) -> dict[str, Any]:
        """The length of the walk."""
        return {"steps": self.steps}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """A forward each step and one more each tenth, and the starting point."""
        return Cost(1.1 * self.steps + 2 + STARTING)


@register_attack("hop-skip-jump")
class HopSkipJump(MinimumAttack):
    """HopSkipJump (Chen et al., S&P 2020): estimates the boundary's normal from decisions.

    Args:
        preset: `light` jumps 3 times, `full` 64 times as Foolbox does.
    """

    summary = "Smallest perturbation by estimating the boundary's normal from decisions"
    aliases = ("hsja",)
    version = 2
    spoken = "HopSkipJump"
    access = "black-box"
    starts = "always"
    implementations: ClassVar[Mapping[Norm, str]] = {
        L2: "HopSkipJumpAttack",
        LINF: "HopSkipJumpAttack",
    }

    def __init__(self, *, preset: Literal["light", "full"] = "light") -> None:
        self.steps = 3 if preset == "light" else 64

    def options(self, norm: Norm) -> dict[str, Any]:
        """The jumps, and the norm that they are to make small."""
        return {"steps": self.steps, "constraint": norm.value.lower()}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Estimates of the normal, and for each jump a search of its length and a bisection.

        The bisection ends at a threshold that falls with the number of pixels, or where float32
        does; the search takes at most 20 halvings in all but degenerate cases.
        """
        bisection = min(math.ceil(2 * math.log2(math.prod(shape))), 24) + 1
        normals = sum(min(int(100 * math.sqrt(step + 1)), 10_000) for step in range(self.steps))
        return Cost(normals + (self.steps + 1) * (20 + bisection + 3) + STARTING)


@register_attack("salt-and-pepper")
class SaltAndPepper(MinimumAttack):
    """Salt-and-pepper noise, less and less of it while it still works.

    Args:
        steps: draws.
    """

    summary = "Smallest L2 perturbation by setting random pixels to black or white"
    aliases = ("salt-pepper",)
    access = "black-box"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "SaltAndPepperNoiseAttack"}

    def __init__(self, *, steps: int = 1000) -> None:
        check_positive(steps=steps)
        self.steps = steps

    def options(self, norm: Norm) -> dict[str, Any]:
        """The number of draws."""
        return {"steps": self.steps}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw, and the checks at both ends."""
        return Cost(self.steps + 2)


@register_attack("blended-noise")
class BlendedNoise(MinimumAttack):
    """Blends the input with uniform noise, more and more until it is misclassified.

    Args:
        directions: draws of noise until one is misclassified (Foolbox: 1,000).
        steps: blends from the input to the noise (Foolbox: 1,000).
    """

    summary = "Smallest share of uniform noise that is misclassified"
    access = "black-box"
    implementations = each_norm("LinearSearchBlendedUniformNoiseAttack", LINF, L2, L1)

    def __init__(self, *, directions: int = 100, steps: int = 200) -> None:
        check_positive(directions=directions, steps=steps)
        self.directions, self.steps = directions, steps

    def options(self, norm: Norm) -> dict[str, Any]:
        """Draws, blends, and the distance, which this attack does not know by itself."""
        from bench.attacks.blocks.library import foolbox

        distance = getattr(foolbox.distances, norm.value.lower())
        return {"directions": self.directions, "steps": self.steps, "distance": distance}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw, every blend, and the check of the end."""
        return Cost(self.directions + self.steps + 2)
