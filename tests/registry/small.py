"""Attacks that tests register: one that moves nothing, one with a parameter of each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.api import Attack, Cost, Problem, Proposal

if TYPE_CHECKING:
    from bench.threat import Norm


class Still(Attack):
    """A valid attack that moves nothing."""

    summary = "moves nothing"

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Free."""
        return Cost(0)

    def run(self, problem: Problem) -> Proposal:
        """Propose the inputs themselves."""
        return Proposal(problem.inputs)


class Tuned(Still):
    """A parameter of each kind."""

    def __init__(
        self,
        *,
        steps: int = 10,
        size: float = 0.5,
        fast: bool = False,
        loss: Literal["ce", "dlr"] = "ce",
        tag: str = "a",
    ) -> None:
        self.values = (steps, size, fast, loss, tag)
