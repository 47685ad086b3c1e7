"""Black-box attacks on single pixels, written anew because Foolbox 3 has them no more.

The originals change a pixel without bound. Here every candidate of theirs is brought into the ball
before the model sees it (`ThreatModel.project`): in Linf a pixel goes at most epsilon towards black
or white; in L2 and L1 the whole perturbation shrinks towards the input, so that several pixels
share epsilon.

Searches that set single pixels to black or white, and stay in the ball by projection.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from bench.api import Attack, Cost, Proposal
from bench.api.attacks import margins
from bench.errors import check_positive
from bench.registry import register_attack

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.ball import Streams
    from bench.attacks.blocks.descent import Search
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

    def __init__(
        self, *, rounds: int = 10, pixels: int = 24, moves: int = 5, reach: int = 5
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


#: What a pixel is set to, in all its channels: the ends of the box.
ENDS = (0.0, 1.0)


def with_pixels(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """A copy with some pixels of each example set, all channels alike.

    Args:
        x: (M, C, H, W).
        places: int64 (M, K), from 0 to H·W - 1, no place twice in an example.
        values: (M, K), dtype of `x`.
    """
    import torch

    changed = x.clone(memory_format=torch.contiguous_format)
    shape = (-1, x.shape[1], -1)
    changed.flatten(2).scatter_(2, places[:, None].expand(shape), values[:, None].expand(shape))
    return changed


def ask(search: Search, rows: Tensor, unbounded: Tensor) -> Tensor:
    """Margins of candidates brought into the ball, which the search keeps where they are better.

    Args:
        search: of the problem.
        rows: the examples that the candidates belong to, int64 (M,), none twice.
        unbounded: in the box, (M, C, H, W).

    Returns:
        Float64 (M,).
    """
    import torch

    problem = search.problem
    x = search.ball.project(problem.inputs[rows], unbounded)
    with torch.no_grad():
        found = margins(problem.model(x), problem.labels[rows]).double()
    search.keep(rows, x, found)
    return found


def single_pixels(search: Search, streams: Streams, pixels: int) -> None:
    """Set one pixel of the input after another to each end of the box, in a random order.

    Args:
        search: of the problem; an example leaves once it is broken.
        streams: the order of an example's pixels.
        pixels: tried at most.
    """
    import torch

    inputs = search.problem.inputs
    everything = torch.arange(len(inputs), device=inputs.device)
    order = streams.uniform(everything)[:, 0].flatten(1).argsort(dim=1)
    for places in order[:, :pixels].T:
        for end in ENDS:
            rows = search.remaining
            if len(rows) == 0:
                return
            place = places[rows, None]
            values = torch.full_like(place, end, dtype=inputs.dtype)
            ask(search, rows, with_pixels(inputs[rows], place, values))


class Position(NamedTuple):
    """Where a local search stands, for the examples that are still being attacked."""

    rows: Tensor
    """Which examples of the problem they are, int64 (M,)."""
    unbounded: Tensor
    """The inputs with the pixels set so far, (M, C, H, W); the model sees their projection."""
    margins: Tensor
    """Of the projection, float64 (M,)."""
    moved: Tensor
    """The pixels set in the last round, bool (M, H·W)."""


def local_search(
    search: Search, streams: Streams, *, rounds: int, pixels: int, moves: int, reach: int
) -> None:
    """Probe some pixels, set those that help most, and go on in their neighbourhood.

    Args:
        search: of the problem; an example leaves after the round in which it is broken.
        streams: which pixels are probed.
        rounds: how many.
        pixels: probed in each round, at both ends of the box; at most H·W.
        moves: pixels set in a round, at most.
        reach: pixels at most so far, in both directions, from one set in the last round go first.
    """
    import torch

    inputs = search.problem.inputs
    rows = torch.arange(len(inputs), device=inputs.device)
    moved = torch.zeros_like(inputs[:, 0].flatten(1), dtype=torch.bool)
    position = Position(rows, inputs, ask(search, rows, inputs), moved)
    for _ in range(rounds):
        stay = search.lowest[position.rows] >= 0
        position = Position(*(part[stay] for part in position))
        if len(position.rows) == 0:
            return
        chosen = _choose(streams.uniform(position.rows)[:, 0], position.moved, reach, pixels)
        position = _advance(search, position, chosen, moves)


def _choose(uniform: Tensor, moved: Tensor, reach: int, pixels: int) -> Tensor:
    """Random pixels, those near the moved ones before the others. Int64 (M, pixels)."""
    from torch.nn import functional

    near = functional.max_pool2d(
        moved.reshape(uniform.shape).float(), 2 * reach + 1, stride=1, padding=reach
    )
    return (near + uniform).flatten(1).topk(pixels, dim=1).indices


def _advance(search: Search, position: Position, chosen: Tensor, moves: int) -> Position:
    """One round: the chosen pixels probed, and the better of two moves made if it lowers margins.

    One sets all of the `moves` best pixels that help by themselves, the other the best one alone.
    """
    import torch

    rows, unbounded, before, _ = position
    ends = torch.tensor(ENDS, device=unbounded.device)
    probed = [
        ask(search, rows, with_pixels(unbounded, places[:, None], end.expand(len(rows), 1)))
        for places in chosen.T
        for end in ends
    ]
    after = torch.stack(probed, dim=1).reshape(len(rows), -1, len(ends))
    lowest, best = after.min(dim=2)
    order = lowest.argsort(dim=1, stable=True)[:, :moves]
    lowest, places, values = (part.gather(1, order) for part in (lowest, chosen, ends[best]))

    def move(helps: Tensor) -> tuple[Tensor, Tensor]:
        """The position after setting the pixels of a mask (M, moves), and which ones it sets."""
        mask = torch.zeros_like(position.moved).scatter(1, places, helps)
        shown = mask.reshape(len(rows), 1, *unbounded.shape[2:])
        return torch.where(shown, with_pixels(unbounded, places, values), unbounded), mask

    helps = lowest < before[:, None]
    first = torch.zeros_like(helps)
    first[:, 0] = helps[:, 0]
    (all_of_them, many), (alone, one) = move(helps), move(first)
    together = ask(search, rows, all_of_them)
    joint = together < lowest[:, 0]
    return Position(
        rows,
        torch.where(joint.reshape(-1, 1, 1, 1), all_of_them, alone),
        torch.where(joint, together, torch.minimum(lowest[:, 0], before)),
        torch.where(joint[:, None], many, one),
    )
