"""AutoAttack's standard cascade on examples at one or several epsilons."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from bench.attacks.blocks.standard import Standard
from bench.attacks.blocks.suspicions import LOWERED, SQUARE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from bench.api import Problem, Proposal


class Cascade:
    """The standard version on an example at one or several epsilons, each attack on what is left.

    What breaks an example breaks it at all larger epsilons. With `Problem.bracket` only its largest
    epsilon is attacked at which it is not broken: when all attacks fail there, that is the end.

    Args:
        problem: with an epsilon for each row.
        members: names of the attacks, in their order. FAB-T, which serves all epsilons of an
            example, goes before APGD-T where there are several.
        queries: of Square.
    """

    def __init__(self, problem: Problem, members: Sequence[str], queries: int) -> None:
        self.problem, self.queries = problem, queries
        self.standard = Standard(problem)
        self.catch = self.standard.catch
        examples = self.standard.every if problem.examples is None else problem.examples
        self.examples = torch.unique(examples, return_inverse=True)[1]
        self.members = list(members)
        if "fab-t" in members and int(self.examples.max()) + 1 < len(self.examples):
            self.members.remove("fab-t")
            self.members.insert(1, "fab-t")
        self.done = torch.zeros(len(members), len(self.examples), dtype=torch.bool)
        self.done = self.done.to(examples.device)
        self.ladders = self._ladders()
        self.lower = {high: low for rungs in self.ladders for low, high in pairwise(rungs)}

    def run(self) -> Proposal:
        """Attack until nothing is left to attack."""
        while len(rows := self._rows()):
            stage = self.done[:, rows].to(torch.uint8).argmin(dim=0)
            now = int(stage.min())
            self._attack(now, rows[stage == now])
            self._share()
        attacked = self.catch.found | self.done.all(dim=0)
        return self.standard.proposal(attacked)

    def _rows(self) -> Tensor:
        """What is to be attacked, int64: not broken, and not attacked by all."""
        left = ~self.catch.found
        if self.problem.bracket:
            highest = torch.zeros_like(left)
            found = self.catch.found.tolist()
            tops = [
                next((r for r in reversed(rungs) if not found[r]), -1) for rungs in self.ladders
            ]
            highest[[top for top in tops if top >= 0]] = True
            left &= highest
        return torch.where(left & ~self.done.all(dim=0))[0]

    def _attack(self, stage: int, rows: Tensor) -> None:
        member, catch = self.members[stage], self.catch
        if member == "fab-t":
            same = self.examples[:, None] == self.examples[None]
            first = torch.tensor(self._firsts(rows), device=rows.device)
            self.standard.boundary(first, same[first] & ~catch.found)
            self.done[stage] |= same[first].any(dim=0)
            return
        self.done[stage, rows] = True
        if member == "square":
            before = catch.found.clone()
            self.standard.square(rows, self.queries)
            self._suspect(catch.found & ~before)
        else:
            chained = self.problem.bracket and member == "apgd-ce"
            self.standard.run(member, rows, self._descend if chained else None)

    def _firsts(self, rows: Tensor) -> list[int]:
        """One row of each example."""
        return list(dict(zip(self.examples[rows].tolist(), rows.tolist(), strict=True)).values())

    def _descend(self, gone: Tensor) -> list[int]:
        """APGD-CE goes on with the next smaller epsilon where it broke one."""
        found = self.catch.found
        lower = [self.lower.get(row, -1) for row in gone[found[gone]].tolist()]
        chosen = [row for row in lower if row >= 0 and not bool(found[row])]
        self.done[self.members.index("apgd-ce"), chosen] = True
        return chosen

    def _share(self) -> None:
        """What broke an example at a smaller epsilon is its candidate at the larger ones."""
        found = self.catch.found.tolist()
        for rungs in self.ladders:
            for low, high in pairwise(rungs):
                if found[low] and not found[high]:
                    self.catch.take(high, low)
                    found[high] = True

    def _suspect(self, broken: Tensor) -> None:
        """Square should not find what gradients do not, at any epsilon."""
        radii, flags = self.catch.radii, self.standard.flags
        at = [radii == epsilon for epsilon in torch.unique(radii)]
        lower = any(int((broken & here).sum()) > LOWERED * int(here.sum()) for here in at)
        if lower and len(self.members) > 1 and SQUARE not in flags:
            flags.append(SQUARE)

    def _ladders(self) -> list[list[int]]:
        """The rows of each example, by epsilon."""
        ladders: dict[int, list[int]] = {}
        for row in self.catch.radii.argsort(stable=True).tolist():
            ladders.setdefault(int(self.examples[row]), []).append(row)
        return list(ladders.values())
