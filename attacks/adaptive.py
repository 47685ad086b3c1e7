"""One attack for anybody's model: descents, hops and local search as chains over the best points.

It needs no declaration: layers through which a gradient misleads are found in the module while it
is asked. Those in which the largest win are differentiated with the choice of the winners, others
by their slopes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.api import Attack, Cost, Flag, Proposal
from bench.attacks.blocks.limits import Limits
from bench.errors import UsageError
from bench.registry import register_attack

if TYPE_CHECKING:
    from bench.api import Problem
    from bench.threat import Norm

LIMITS = {
    "light": Limits(400, 0.003),
    "default": Limits(3300, 0.001),
    "full": Limits(16000, 0.001, times=2),
}


@register_attack("adaptive")
class Adaptive(Attack):
    """Chains of hops, descents and local search, through winner-take-all layers as well.

    Four descents, on the margin, the cross-entropy, and the margins over the second and the third
    class, start from the input and from random points. Their ends become chains, which hop in turn:
    pixels are taken from another, a short descent follows, and candidates near its end are tried.
    An example is done when two of its points are equally low, and where a layer misleads gradients
    when that has happened once more; with `full` once more again. See `docs/adaptive.md`.

    Args:
        preset: passes of an example that does not break, at most: `light` 400, `default` 3,300,
            `full` 16,000.
        smooth: whether layers through which gradients mislead are looked for; without it the
            model's own gradient is followed throughout.
    """

    summary = "Chains of hops, descents and local search, through winner-take-all layers as well"
    approach = "mixed"
    lowers = "margin"
    challenge = "adaptive"
    spoken = "The adaptive attack"
    examination = ("",)
    planted = ("preset=light",)
    escalation = (("",), ("preset=full",))
    takes_surrogates = True
    each_row = True
    version = 7

    def __init__(
        self, *, preset: Literal["light", "default", "full"] = "default", smooth: bool = True
    ) -> None:
        if preset not in LIMITS:
            raise UsageError(f"preset has to be one of {', '.join(LIMITS)} (got {preset!r})")
        self.limits = LIMITS[preset] if smooth else LIMITS[preset].unsmoothed()
        self.smooth = smooth

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """What an example may take, and the last turn that it begins before its end."""
        from bench.attacks.blocks.chains import TURN

        # The first descents fit into every preset, and of all passes at most half are backwards.
        passes = self.limits.passes + TURN
        return Cost(passes, passes / 2)

    def run(self, problem: Problem) -> Proposal:
        """Search; flags name the layers that were found.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.chains import Chains
        from bench.attacks.blocks.outlook import Outlook
        from bench.attacks.blocks.smoothing import SmoothBackward

        with SmoothBackward(problem.model) as backward:
            look = Outlook(problem, backward if self.smooth else None)
            chains = Chains(problem, look, self.limits)
            chains.run()
        kinds = (
            ("winner-take-all", "winner-take-all layers were smoothed", backward.layers),
            ("misleading-layers", "layers were followed by measured slopes", backward.jumps),
        )
        flags = [Flag(code, f"{words}: {', '.join(each)}") for code, words, each in kinds if each]
        return Proposal(chains.known.best, flags=tuple(flags))
