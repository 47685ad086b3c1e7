"""Chains of hops and descents over the lowest points of each example, with local search between.

Restarts alone soon stop paying. Each example keeps some of the points that its descents ended in.
In turn each of them hops to a point between itself and another, of which it takes a share of the
pixels; a short descent follows, and candidates near its end are tried. An example is done when two
of its points are equally low: there the search has converged. Where gradients mislead it begins
once more, as points agree late and for want of a way as well.

Everything that is drawn for an example comes from its own stream, and what is spent on it follows
from its own past: what is found depends neither on its batch nor on its neighbours.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch.nn.functional import cross_entropy

from bench.api.attacks import margins
from bench.attacks.blocks.ball import Ball, Streams
from bench.attacks.blocks.keeping import marked, pace, put, some
from bench.attacks.blocks.known import Known
from bench.attacks.blocks.moves import Moves, wide_as
from bench.attacks.blocks.outlook import Way
from bench.defenses.activations.smooth import Smoothness
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.limits import Limits
    from bench.attacks.blocks.outlook import Loss, Seen, View

#: Points that an example keeps.
CHAINS = 4
#: Steps of a descent from the input or a random point, and of one after a hop.
LONG, SHORT = 25, 12
#: Rounds of local search after a hop, and the candidates of each. As many more follow, up to so
#: many times, for as long as they lower the point by more than this share.
ROUNDS, CANDIDATES, TIMES, GAIN = 12, 2, 8, 0.02
#: The share of its pixels that a chain takes from another in a hop, and that a candidate takes,
#: the last one of every so many rounds.
HOPPED, MIXED, MIXES = (0.2, 0.8), (0.1, 0.5), 4
#: The number of the last of the first descents.
FIRST = 3
#: For so many turns an example has one chain hop, as it may settle soon; then every so many turns a
#: descent starts anew, every second time in a ball that shrinks from so many times epsilon, and in
#: the others all chains hop at once.
ALONE, ANEW, WIDE = 8, 3, 4.0
#: What is left of an older gradient after each step.
DECAY = 0.6
#: Of the pixels, the share that the first step of a descent in L1 moves; it falls as the steps do.
L1_SHARE = 0.2
#: Looks at each of its points, after which an example of a randomised model keeps the lowest.
AGAIN = 4
#: Forwards and backwards of one example, at most: of the first descents, and of a turn that begins
#: just before its end, with a patience of 2; of a randomised model so many times `View.draws`.
BEGINNING, TURN = 1 + 4 * (2 * LONG + 1), 2 * SHORT + 1 + 2 * ROUNDS * CANDIDATES


class Descent(NamedTuple):
    """How a descent goes."""

    loss: int
    """0 raises the cross-entropy, 1 and 2 lower the margin over the clean second and third class,
    3 lowers the margin."""
    steps: int
    sizes: Tensor
    """Of the first step, relative to epsilon, (M,); they fall along half a cosine."""
    wide: float = 1.0
    """The radius that the ball shrinks from, relative to epsilon."""


class Chains:
    """The search.

    Args:
        problem: with an epsilon.
        look: at its model.
        limits: when an example is done.
    """

    def __init__(self, problem: Problem, look: View, limits: Limits) -> None:
        n, self.device = len(problem.labels), problem.inputs.device
        self.problem, self.look, self.limits = problem, look, limits
        self.ball, self.streams = Ball.of(problem), Streams(problem, "chains")
        self.moves = Moves(self.ball, self.streams)
        self.known = Known(problem.inputs, CHAINS)
        self.spent = torch.zeros(n, dtype=torch.int64, device=self.device)
        """Forwards and backwards of each example."""
        self.blind = torch.zeros(n, dtype=torch.bool, device=self.device)
        """Whether no gradient shows a way: candidates alone are tried."""
        self.agreed = torch.zeros(n, dtype=torch.int64, device=self.device)
        """How often points of each example have agreed, each time those of other chains."""
        self.others = torch.zeros(n, 2, dtype=torch.int64, device=self.device)
        self.number = 0
        """Of the descent or turn, the same for all examples: they begin together."""

    def run(self) -> None:
        """Everything, until each example is broken, agreed upon, or has spent what it may."""
        self.begin()
        while len(rows := self.unsettled()):
            self.number += 1
            young = self.known.heights[rows].isinf().any(dim=1)
            if len(begun := rows[young]):
                self.anew(begun, self.number % (FIRST + 1))
            if not len(rows := rows[~young]):
                continue
            turn = self.number - FIRST
            later = turn - ALONE
            if later < 0:
                self.turn(rows, self.known.heights[rows].argsort(dim=1)[:, turn % CHAINS])
            elif later % ANEW == 0:
                self.anew(rows, 3, WIDE if later // ANEW % 2 else 1.0)
            else:
                self.turn(torch.cat([rows] * CHAINS), self._every(rows))
        if self.look.draws > 1:
            self.choose()

    def _every(self, rows: Tensor) -> Tensor:
        """The number of each chain, as often as there are examples."""
        return torch.arange(CHAINS, device=self.device).repeat_interleave(len(rows))

    def choose(self) -> None:
        """Ask again about the ends of each example's chains, in draws that chose none of them.

        Where chains were begun once more, their predecessors' lowest point is asked about as well.
        """
        rows = torch.arange(len(self.known.lowest), device=self.device)
        self.known.recall()
        for place in range(CHAINS):
            found = torch.zeros_like(self.known.lowest)
            for again in range(AGAIN):
                way = Way(self.number + 1 + again)
                found += self._looked(self.known.ends[:, place], rows, None, way).margins / AGAIN
            self.known.heights[:, place] = torch.where(
                self.known.heights[:, place].isinf(), torch.inf, found
            )
        self.known.best = self.known.ends[rows, self.known.heights.argmin(dim=1)]

    @property
    def alive(self) -> Tensor:
        """The examples that are not broken and may go on, int64."""
        return torch.where(self._going)[0]

    @property
    def _going(self) -> Tensor:
        """Whether each example is not broken and may go on, bool."""
        return ~self.known.broken & (self.spent < self.limits.passes)

    def unsettled(self) -> Tensor:
        """Of those alive, the ones whose lowest points have not agreed as often as they have to."""
        agree = self.known.agree(self.limits.agreement) & ~self.blind
        self.agreed += agree.long()
        unsure = self.agreed < self.limits.times + self.look.misled
        self.known.forget(agree & unsure)
        return torch.where(self._going & unsure)[0]

    # --- descents ---------------------------------------------------------------------------------

    def begin(self) -> None:
        """Four descents, each on a loss of its own: from the input, and from random points."""
        rows = torch.arange(len(self.known.lowest), device=self.device)
        inputs = self.problem.inputs
        with torch.no_grad():
            logits = self.problem.model(inputs)
        self.spent += 1
        rest = logits.scatter(1, self.problem.labels[:, None], -math.inf)
        order = rest.topk(min(2, rest.shape[1] - 1), dim=1).indices
        self.others = order.expand(-1, 2) if order.shape[1] == 1 else order
        sizes = torch.ones(len(rows), device=self.device)
        self.known.enchain(rows, *self._descend(inputs.clone(), rows, Descent(3, LONG, sizes)))
        for loss in (0, 1, 2):
            self.number += 1
            if len(rows := self.alive):
                self.anew(rows, loss)

    def anew(self, rows: Tensor, loss: int, wide: float = 1.0) -> None:
        """Descend from a random point of the ball: another chain, in the place of the highest."""
        x = self.ball.at(rows).start(self.streams.uniform(rows))
        blind = self.blind[rows]
        (seeing,) = torch.where(~blind)
        if len(seeing):
            how = Descent(loss, LONG, torch.ones(len(seeing), device=self.device), wide)
            self.known.enchain(rows[seeing], *self._descend(x[seeing], rows[seeing], how))
        if len(seeing) < len(rows):
            (unseeing,) = torch.where(blind)
            self._seen(rows[unseeing], x[unseeing])

    def _descend(self, x: Tensor, rows: Tensor, how: Descent) -> tuple[Tensor, Tensor, Tensor]:
        """Step against the momentum of the gradients: lowest points, their margins, and if broken.

        Where an example is broken from one of its points the others are left where they are.
        """
        way = self._way()
        ball, momentum = self.ball.at(rows), torch.zeros_like(x)
        low = torch.full(rows.shape, math.inf, dtype=torch.float64, device=self.device)
        broken = torch.zeros_like(rows, dtype=torch.bool)
        point, live = ball.inputs.clone(), torch.arange(len(rows), device=self.device)
        going = torch.ones_like(broken)
        near, own, sizes, loss = ball, rows, how.sizes, self._loss(how.loss, rows)
        for step in range(how.steps + 1):
            fall = (1 + math.cos(math.pi * step / how.steps)) / 2
            seen = self._looked(x, own, loss if step < how.steps else None, way, going)
            # What lies outside the ball so far is no candidate yet.
            inside = going & (how.wide == 1 or _radius(how, step - 1) == 1)
            better = (seen.margins < low[live]) & inside
            put(point, live, better, x)
            put(low, live, better, seen.margins)
            put(broken, live, better, seen.broken)
            if seen.gradient is None:
                break
            gradient = seen.gradient
            flat = (gradient.flatten(1) == 0).all(dim=1)
            if step == 0:
                self.blind |= marked(own, flat, len(self.blind))
            if some(seen.broken):
                self.known.broken |= marked(own, seen.broken & inside, len(self.known.broken))
            going = going & ~(flat | self.known.broken[own])
            if step % pace(x) == 0 and some(~going):
                (stay,) = torch.where(going)
                if not len(stay):
                    break
                live, x, momentum, gradient = live[stay], x[stay], momentum[stay], gradient[stay]
                going, sizes = going[stay], sizes[stay]
                near, own = ball.at(live), rows[live]
                loss = self._loss(how.loss, own)
            scale = gradient.abs().flatten(1).mean(dim=1).clamp(min=1e-30)
            momentum = DECAY * momentum + gradient / wide_as(scale, gradient)
            length = wide_as(sizes, gradient) * fall * near.radius
            moved = x - length * self._direction(momentum, fall)
            wide = _radius(how, step)
            x = (near if wide == 1 else near.times(wide)).project(moved)
        return point, low, broken

    def _looked(
        self, x: Tensor, rows: Tensor, loss: Loss | None, way: Way, going: Tensor | int = 1
    ) -> Seen:
        """Look at points of these examples, and count what it took of those that are going."""
        seen = self.look(x, rows, loss, way)
        self.spent.index_add_(0, rows, seen.passes * going)
        return seen

    def _direction(self, gradient: Tensor, fall: float) -> Tensor:
        """The step of size 1: in L1 along those of the largest gradients, fewer and fewer."""
        if self.ball.norm is not Norm.L1:
            return self.ball.direction(gradient)
        flat = gradient.flatten(1)
        top = flat.abs().topk(max(1, int(L1_SHARE * fall * flat.shape[1])), dim=1)
        signs = torch.zeros_like(flat).scatter(1, top.indices, flat.gather(1, top.indices).sign())
        return (signs / top.values.shape[1]).reshape(gradient.shape)

    def _way(self) -> Way:
        """Of all that has this number, whatever the batch."""
        return Way(self.number, Smoothness.drawn(self.problem.seed, self.number))

    def _loss(self, number: int, rows: Tensor) -> Loss:
        if number == 0:
            return lambda logits, labels: -cross_entropy(logits, labels, reduction="none")
        if number == 3:
            return margins
        pair = torch.stack([self.problem.labels[rows], self.others[rows, number - 1]], dim=1)
        return lambda logits, _: logits.gather(1, pair)[:, 0] - logits.gather(1, pair)[:, 1]

    # --- hops and what lies around ----------------------------------------------------------------

    def turn(self, rows: Tensor, place: Tensor) -> None:
        """Chains of these examples hop, descend and look around; no chain is named twice."""
        (seeing,) = torch.where(~self.blind[rows])
        if len(seeing):
            self._hop(rows[seeing], place[seeing])
        self._look_around(rows, place)

    def _hop(self, rows: Tensor, place: Tensor) -> None:
        moved = self._between(rows, place, HOPPED)
        how = Descent(3, SHORT, self.moves.steps(rows))
        points, low, broken = self._descend(moved, rows, how)
        self.known.move(rows, place, points, low)
        self.known.keep(rows, points, low, broken)

    def _between(self, rows: Tensor, place: Tensor, share: tuple[float, float]) -> Tensor:
        """A point between each of these chains and another of the same example."""
        other = (place + 1 + self.moves.choice(rows, CHAINS - 1)) % CHAINS
        return self.moves.between(
            self.known.ends[rows, place], self.known.ends[rows, other], rows, share
        )

    def _look_around(self, rows: Tensor, place: Tensor) -> None:
        """Try candidates near the ends of chains for as long as it pays, each example by itself."""
        before = self.known.heights[rows, place]
        for number in range(TIMES * ROUNDS):
            if number % pace(rows):
                self._round(rows, place, number)
                continue
            stay = ~self.known.broken[rows]
            if number and number % ROUNDS == 0:
                now = self.known.heights[rows, place]
                pays = (before - now > GAIN * now.abs()) | (number < self.limits.patience * ROUNDS)
                stay &= pays & (self.spent[rows] < self.limits.passes)
                before = now
            (left,) = torch.where(stay)
            if len(left) < len(rows):
                rows, place, before = rows[left], place[left], before[left]
            if not len(rows):
                return
            self._round(rows, place, number)

    def _round(self, rows: Tensor, place: Tensor, number: int) -> None:
        """Move the ends of chains to the lowest of their candidates, where it is lower."""
        x = self.known.ends[rows, place]
        near = [self.moves.near(x, rows, number + i) for i in range(CANDIDATES)]
        if number % MIXES == MIXES - 1:
            near[-1] = self._between(rows, place, MIXED)
        tried = torch.stack(near)
        seen = self._looked(tried.flatten(0, 1), torch.cat([rows] * CANDIDATES), None, self._way())
        low, which = seen.margins.reshape(CANDIDATES, -1).min(dim=0)
        low = torch.where(self.known.broken[rows], torch.inf, low)
        one = torch.arange(len(rows), device=self.device)
        tried, broken = tried[which, one], seen.broken.reshape(CANDIDATES, -1)[which, one]
        self.known.move(rows, place, tried, low)
        self.known.keep(rows, tried, low, broken)

    # --- what is known ----------------------------------------------------------------------------

    def _seen(self, rows: Tensor, x: Tensor) -> None:
        """Ask about points, and take them for ends of chains where they are lower."""
        seen = self._looked(x, rows, None, self._way())
        self.known.enchain(rows, x, seen.margins, seen.broken)


def _radius(how: Descent, step: int) -> float:
    """Of the ball at a step, relative to epsilon: it is the problem's own for the last third."""
    return max(1.0, how.wide - (how.wide - 1) * step / (2 * how.steps / 3))
