"""How much attacks find: adversarial examples are planted in the model, and searched."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bench.api import PLANTED, Cost
from bench.attacks.probes import Probe
from bench.registry import attacks, register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Attack, Problem
    from bench.attacks.blocks.planting import Planting

#: Random corners of a ball among which no planted example should be found.
TRIES = 200
#: Pixels of the largest images, in each direction, on which honest models and those that mask their
#: gradient were told apart.
LARGEST = 32


@register_attack("probe-planted")
class ProbePlanted(Probe):
    """Do attacks find adversarial examples that are known to exist in this very model?

    One is planted for each example (`bench.attacks.blocks.planting`), and each attack that declares
    `planted` searches them. Of each example: `planted`, whether that was possible;
    `planted_by_chance`, whether one of 200 random corners of the ball is adversarial too; and under
    `bench.api.PLANTED` and its name, whether an attack found one, judged here: in the ball, and of
    another class. A randomised model is left out, because its logits change between calls.
    """

    summary = "Measures how many planted adversarial examples attacks find"
    norms = frozenset({Norm.LINF})
    traces = ("planted", "planted_by_chance", "unmeasured")
    sample = 50

    @functools.cached_property
    def searches(self) -> list[Attack]:
        """The attacks that search, in the options that they declare for it."""
        return [
            attacks.create(f"{name}[{options}]" if options else name)
            for name in attacks.names()
            for options in attacks.get(name).planted
        ]

    def able(self, norm: Norm, shape: tuple[int, int, int]) -> list[Attack]:
        """Those that can search two classes here."""
        return [a for a in self.searches if not a.why_not(norm=norm, shape=shape, classes=2)]

    @property
    def columns(self) -> tuple[str, ...]:
        """One for each search as well."""
        return (*self.traces, *(PLANTED + attack.name for attack in self.searches))

    def why_not(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> str | None:
        """What is found says nothing where nobody knows what honest models let find."""
        if max(shape[1:]) > LARGEST:
            size = f"{shape[1]} x {shape[2]}"
            return f"its measure is known for images of at most {LARGEST} pixels (got {size})"
        return super().why_not(norm=norm, shape=shape, classes=classes)

    def depends(self) -> dict[str, int]:
        """On its searches."""
        return {attack.name: attack.version for attack in self.searches}

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """The planting, the random corners, and every search on two classes."""
        from bench.attacks.blocks.planting import CLIMB, CORNERS

        able = self.able(norm, shape)
        costs = [attack.cost(norm=norm, shape=shape, classes=2) for attack in able]
        return sum(costs, start=Cost(CORNERS + CLIMB + TRIES + 3 + len(costs)))

    def measure(self, problem: Problem) -> dict[str, Any]:
        """See the class."""
        import numpy as np

        from bench.attacks.blocks.planting import plant

        columns = {name: np.full(len(problem.inputs), np.nan) for name in self.columns}
        columns["planted"][:] = 0
        planting = None if problem.randomised else plant(problem)
        if planting is None or not len(planting.rows):
            return columns
        rows = planting.rows.cpu().numpy()
        columns["planted"][rows] = 1
        columns["planted_by_chance"][rows] = _by_chance(planting).cpu().numpy()
        channels, height, width = problem.inputs.shape[1:]
        for attack in self.able(problem.norm, (channels, height, width)):
            columns[PLANTED + attack.name][rows] = _found_by(attack, planting).cpu().numpy()
        return columns


def _found_by(attack: Attack, planting: Planting) -> Tensor:
    """Where an attack finds an adversarial example, bool (M,)."""
    return _class_one(planting, attack.run(planting.problem).candidates)


def _by_chance(planting: Planting) -> Tensor:
    """Where one of the random corners is adversarial, bool (M,)."""
    import torch

    from bench.attacks.blocks.ball import Ball, Streams
    from bench.attacks.blocks.planting import AT_ONCE, random_corners

    problem = planting.problem
    ball, streams = Ball.of(problem), Streams(problem, "planted by chance")
    rows = torch.arange(len(problem.inputs), device=problem.inputs.device)
    found = torch.zeros_like(rows).bool()
    for _ in range(TRIES // AT_ONCE):
        for signs in random_corners(streams, rows, AT_ONCE).unbind(dim=1):
            found |= _class_one(planting, ball.inputs + ball.radius * signs)
    return found


def _class_one(planting: Planting, candidates: Tensor) -> Tensor:
    """Which candidates, brought into the ball, are of class 1; bool (M,)."""
    import torch

    from bench.attacks.blocks.ball import Ball

    problem = planting.problem
    inside = Ball.of(problem).project(candidates.detach())
    with torch.no_grad():
        found: Tensor = problem.model(inside).argmax(dim=1) == 1
    return found
