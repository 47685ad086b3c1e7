"""Black-box attacks on single pixels, written anew because Foolbox 3 has them no more.

The originals change a pixel without bound. Here every candidate of theirs is brought into the ball
before the model sees it (`ThreatModel.project`): in Linf a pixel goes at most epsilon towards black
or white; in L2 and L1 the whole perturbation shrinks towards the input, so that several pixels
share epsilon.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bench.api import Attack, Cost, Proposal
from bench.errors import check_positive
from bench.registry import register_attack

if TYPE_CHECKING:
    from bench.api import Problem
    from bench.threat import Norm


@register_attack("single-pixel")
class SinglePixel(Attack):
    """One pixel of the input towards black or white (Foolbox 1's `SinglePixelAttack`).

    All channels of the pixel go the same way. Unlike the original's, the pixel stays in the ball;
    and what is kept is not the first success but the lowest margin up to it, so that there is a
    candidate for every example. Whichever batch an example comes in, its pixels are the same.

    Args:
        pixels: tried at most, each at both ends (Foolbox: 1,000); all of smaller images.
    """

    summary = "One pixel towards black or white, as far as epsilon allows"
    access = "black-box"
    each_row = True
    version = 2

    def __init__(self, *, pixels: int = 250) -> None:
        check_positive(pixels=pixels)
        self.pixels = pixels

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Both ends of every pixel, for an example that does not break."""
        return Cost(2 * min(self.pixels, math.prod(shape[1:])))

    def run(self, problem: Problem) -> Proposal:
        """Try the pixels one after another.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import Search
        from bench.attacks.blocks.pixels import single_pixels

        search = Search(problem)
        single_pixels(search, Streams(problem, "single pixel"), self.pixels)
        return Proposal(search.best)


@register_attack("local-search")
class LocalSearch(Attack):
    """Greedy local search over pixels (Narodytska and Kasiviswanathan, CVPR workshops 2017).

    Each round probes some pixels, sets those that lower the logit margin most, and the next round
    probes near them first. Unlike the original, which probes a pixel at one value far outside the
    box and then sets it to another by multiplying it cyclically, a pixel is probed at and set to
    black or white, whichever is better, and the result is brought into the ball; only pixels that
    lower the margin are set, the best one alone where that lowers it more; and where none does, the
    next pixels come from the whole image. Whichever batch an example comes in, its pixels are the
    same.

    Args:
        rounds: of probing and setting (original: 150).
        pixels: probed in each round, at both ends (original: up to 128); all of smaller images.
        moves: pixels set in each round, at most.
        reach: how far the neighbourhood of a pixel extends, in pixels to each side.
    """

    summary = "Greedy search over pixels, near those that helped before"
    access = "black-box"
    each_row = True
    version = 2

    def __init__(
        self, *, rounds: int = 4, pixels: int = 24, moves: int = 5, reach: int = 5
    ) -> None:
        check_positive(rounds=rounds, pixels=pixels, moves=moves, reach=reach)
        self.rounds, self.pixels, self.moves, self.reach = rounds, pixels, moves, reach

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """The input, and in each round the probes and their sum, for an example not broken."""
        probes = 2 * min(self.pixels, math.prod(shape[1:]))
        return Cost(1 + self.rounds * (probes + 1))

    def run(self, problem: Problem) -> Proposal:
        """Search.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import Search
        from bench.attacks.blocks.pixels import local_search

        search = Search(problem)
        local_search(
            search,
            Streams(problem, "local search"),
            rounds=self.rounds,
            pixels=min(self.pixels, math.prod(problem.inputs.shape[2:])),
            moves=self.moves,
            reach=self.reach,
        )
        return Proposal(search.best)
