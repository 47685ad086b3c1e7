"""Adversarial examples that somebody else made, as an attack that searches nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.api import Attack, Cost, Problem, Proposal
from bench.errors import AttackError
from bench.registry import register_attack

if TYPE_CHECKING:
    from bench.threat import Norm


@register_attack("external")
class External(Attack):
    """Candidates from a file (`python -m bench import-adversarial`): the judge decides on each.

    They are read in every threat model of the run, as those of a minimum-norm attack are. Where
    they do not cover all examples it is no row, and adds to the worst case alone.
    """

    argument = "NAME"
    kind = "minimum"
    needs = "candidates"
    summary = "adversarial examples from a file, by import-adversarial"

    def __init__(self, name: str, /) -> None:
        self.file = name

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Nothing: only the judge asks the model."""
        return Cost(0)

    def run(self, problem: Problem) -> Proposal:
        """What the file holds for these examples."""
        if problem.candidates is None:
            raise AttackError("the problem has no candidates from a file")
        return Proposal(problem.candidates)
