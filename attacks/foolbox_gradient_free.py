"""Foolbox's attacks without gradients: noise, walks along the boundary, blending."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api import Cost
from bench.attacks.bridging import check_positive
from bench.attacks.bridging.adapter import STARTING, FoolboxAttack, each_norm
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping

LINF, L2, L1 = Norm.LINF, Norm.L2, Norm.L1


@register_attack("uniform-noise")
class UniformNoise(FoolboxAttack):
    """Uniform noise; in L2 scaled so that its size is epsilon after clipping to the box.

    Args:
        draws: how many are tried; an example is broken when one of them breaks it.
    """

    summary = "Uniform noise within epsilon"
    version = 2
    access = "noise"
    implementations: ClassVar[Mapping[Norm, str]] = {
        LINF: "LinfRepeatedAdditiveUniformNoiseAttack",
        L2: "L2ClippingAwareRepeatedAdditiveUniformNoiseAttack",
    }

    def __init__(self, *, draws: int = 1) -> None:
        check_positive(draws=draws)
        self.draws = draws

    def options(self, norm: Norm) -> dict[str, Any]:
        """The draws; the inputs are known to be classified right."""
        return {"repeats": self.draws, "check_trivial": False}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw, and the check of the end."""
        return Cost(self.draws + 1)


@register_attack("gaussian-noise")
class GaussianNoise(UniformNoise):
    """Gaussian noise, scaled so that its size is epsilon after clipping to the box.

    Args:
        draws: how many are tried; an example is broken when one of them breaks it.
    """

    summary = "Gaussian noise of size epsilon"
    implementations: ClassVar[Mapping[Norm, str]] = {
        L2: "L2ClippingAwareRepeatedAdditiveGaussianNoiseAttack"
    }


@register_attack("boundary")
class Boundary(FoolboxAttack):
    """Boundary attack (Brendel et al., ICLR 2018): a random walk along the boundary.

    Args:
        preset: `light` walks 2,000 steps, `full` 25,000 as Foolbox does.
    """

    summary = "Smallest L2 perturbation by a random walk along the decision boundary"
    kind = "minimum"
    access = "black-box"
    starts = "always"
    implementations: ClassVar[Mapping[Norm, str]] = {L2: "BoundaryAttack"}

    def __init__(self, *, preset: Literal["light", "full"] = "light") -> None:
        self.steps = 2_000 if preset == "light" else 25_000

    def options(self, norm: Norm) -> dict[str, Any]:
        """The length of the walk."""
        return {"steps": self.steps}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """A forward each step and one more each tenth, and the starting point."""
        return Cost(1.1 * self.steps + 2 + STARTING)


@register_attack("hop-skip-jump")
class HopSkipJump(FoolboxAttack):
    """HopSkipJump (Chen et al., S&P 2020): estimates the boundary's normal from decisions.

    Args:
        preset: `light` jumps 10 times, `full` 64 times as Foolbox does.
    """

    summary = "Smallest perturbation by estimating the boundary's normal from decisions"
    kind = "minimum"
    access = "black-box"
    starts = "always"
    implementations: ClassVar[Mapping[Norm, str]] = {
        L2: "HopSkipJumpAttack",
        LINF: "HopSkipJumpAttack",
    }

    def __init__(self, *, preset: Literal["light", "full"] = "light") -> None:
        self.steps = 10 if preset == "light" else 64

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
class SaltAndPepper(FoolboxAttack):
    """Salt-and-pepper noise, less and less of it while it still works.

    Args:
        steps: draws.
    """

    summary = "Smallest L2 perturbation by setting random pixels to black or white"
    kind = "minimum"
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
class BlendedNoise(FoolboxAttack):
    """Blends the input with uniform noise, more and more until it is misclassified.

    Args:
        directions: draws of noise until one is misclassified (Foolbox: 1,000).
        steps: blends from the input to the noise (Foolbox: 1,000).
    """

    summary = "Smallest share of uniform noise that is misclassified"
    kind = "minimum"
    access = "black-box"
    implementations = each_norm("LinearSearchBlendedUniformNoiseAttack", LINF, L2, L1)

    def __init__(self, *, directions: int = 100, steps: int = 200) -> None:
        check_positive(directions=directions, steps=steps)
        self.directions, self.steps = directions, steps

    def options(self, norm: Norm) -> dict[str, Any]:
        """Draws, blends, and the distance, which this attack does not know by itself."""
        import foolbox

        distance = getattr(foolbox.distances, norm.value.lower())
        return {"directions": self.directions, "steps": self.steps, "distance": distance}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every draw, every blend, and the check of the end."""
        return Cost(self.directions + self.steps + 2)
