"""Searches that set single pixels to black or white, and stay in the ball by projection."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn import functional

from bench.api.attacks import margins

if TYPE_CHECKING:
    from torch import Tensor

    from bench.attacks.blocks.ball import Streams
    from bench.attacks.blocks.descent import Search

#: What a pixel is set to, in all its channels: the ends of the box.
ENDS = (0.0, 1.0)


def with_pixels(x: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """A copy with some pixels of each example set, all channels alike.

    Args:
        x: (M, C, H, W).
        places: int64 (M, K), from 0 to H·W - 1, no place twice in an example.
        values: (M, K), dtype of `x`.
    """
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
    problem = search.problem
    x = search.ball.at(rows).project(unbounded)
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
    near = functional.max_pool2d(
        moved.reshape(uniform.shape).float(), 2 * reach + 1, stride=1, padding=reach
    )
    return (near + uniform).flatten(1).topk(pixels, dim=1).indices


def _advance(search: Search, position: Position, chosen: Tensor, moves: int) -> Position:
    """One round: the chosen pixels probed, and the better of two moves made if it lowers margins.

    One sets all of the `moves` best pixels that help by themselves, the other the best one alone.
    """
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
