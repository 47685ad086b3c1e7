"""AutoAttack's standard version (Croce and Hein, ICML 2020) on rows, each with its own epsilon."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bench.api import Proposal
from bench.attacks.blocks.auto_pgd import AutoPGD, cross_entropy, logits_ratio, targeted_ratio
from bench.attacks.blocks.ball import Ball
from bench.attacks.blocks.batches import drive
from bench.attacks.blocks.fab import FastBoundary
from bench.attacks.blocks.findings import Findings
from bench.attacks.blocks.square import SquareSearch
from bench.attacks.blocks.suspicions import LOWERED, SQUARE, ZERO_GRADIENT, look_over
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.auto_pgd import Objective


def restarts(norm: Norm) -> int:
    """Of Auto-PGD without a target."""
    return 5 if norm is Norm.L1 else 1


def targets(norm: Norm, classes: int) -> int:
    """Classes that Auto-PGD goes towards."""
    return min(5 if norm is Norm.L1 else 9, classes - 1)


def likely(logits: Tensor, count: int) -> Tensor:
    """The most likely classes after the first, int64 (count, N)."""
    return logits.sort(dim=1, descending=True, stable=True).indices[:, 1 : count + 1].T


class Standard:
    """The attacks on some rows of a problem; what they find is kept in `findings`.

    Args:
        problem: with an epsilon.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.findings = problem, Findings(problem)
        self.logits, self.flags = look_over(problem)
        self.every = torch.arange(len(problem.labels), device=problem.labels.device)
        self.findings.offer(self.every, problem.inputs, self.logits)

    def proposal(self, attacked: Tensor | None = None) -> Proposal:
        """What was found; the input where nothing was."""
        return Proposal(self.findings.best, flags=tuple(self.flags), attacked=attacked)

    def run(
        self, member: str, rows: Tensor, then: Callable[[Tensor], list[int]] | None = None
    ) -> None:
        """One of the attacks by gradients on these rows, int64 (M,); `then` as for `drive`."""
        norm, classes = self.problem.norm, self.problem.classes
        if member == "apgd-t":
            towards = likely(self.logits, targets(norm, classes))
            self._climb(member, targeted_ratio, rows, towards, then)
        else:
            objective = cross_entropy if member == "apgd-ce" else logits_ratio
            nowhere = torch.zeros(restarts(norm), len(self.logits), dtype=torch.int64)
            self._climb(member, objective, rows, nowhere.to(rows.device), then)

    def square(self, rows: Tensor, queries: int, times: int = 1) -> None:
        """Square, so many times, on what is not broken of these rows."""
        for number in range(times):
            rows = rows[~self.findings.found[rows]]
            if len(rows):
                search = SquareSearch(self.findings, f"square {number}", queries)
                drive(search, rows, self.problem.inputs)

    def boundary(self, rows: Tensor, wanted: Tensor) -> None:
        """FAB-T once for the example of each of these rows, and what it finds for others of it.

        Args:
            rows: int64 (M,).
            wanted: bool (M, N), the rows of that example that are not broken.
        """
        radii, part = self.findings.radii, self.problem.part(rows)
        enough = torch.where(wanted, radii, torch.inf).amin(dim=1)
        towards = likely(self.logits[rows], targets(Norm.LINF, part.classes))
        search = FastBoundary(part, towards, enough)
        drive(search, torch.arange(len(rows), device=rows.device), part.inputs)
        best, nearest = search.smallest()
        place, others = torch.where(wanted & (nearest[:, None] <= radii))
        if len(others) == 0:
            return
        inputs, best = part.inputs[place], best[place]
        ball = Ball.of(self.problem).at(others)
        # At the border the margin is faint: further out in this direction it is mostly larger.
        further = (radii[others] / nearest[place]).float().reshape(ball.radius.shape)
        for x in (best, ball.project(inputs + further * (best - inputs))):
            with torch.no_grad():
                self.findings.offer(others, x, self.problem.model(x))

    def _climb(
        self,
        member: str,
        objective: Objective,
        rows: Tensor,
        towards: Tensor,
        then: Callable[[Tensor], list[int]] | None,
    ) -> None:
        """The first copy of each row alone, since that breaks most; then all others together."""
        kinds: Sequence[int]
        for kinds in ([0], range(1, len(towards))):
            rows = rows[~self.findings.found[rows]]
            if not kinds or not len(rows):
                break
            search = AutoPGD(self.findings, objective, member, kinds, towards[list(kinds)])
            drive(search, rows, self.problem.inputs, then)
            then = None
            if search.flat and objective is not cross_entropy and ZERO_GRADIENT not in self.flags:
                self.flags.append(ZERO_GRADIENT)


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
        self.findings = self.standard.findings
        examples = self.standard.every if problem.examples is None else problem.examples
        self.examples = examples.unique(return_inverse=True)[1]
        self.members = list(members)
        if "fab-t" in members and int(self.examples.max()) + 1 < len(self.examples):
            self.members.remove("fab-t")
            self.members.insert(1, "fab-t")
        self.done = torch.zeros(len(members), len(self.examples), dtype=torch.bool)
        self.done = self.done.to(examples.device)
        self.ladders = self._ladders()
        self.lower = {high: low for rungs in self.ladders for low, high in _pairs(rungs)}

    def run(self) -> Proposal:
        """Attack until nothing is left to attack."""
        while len(rows := self._rows()):
            stage = self.done[:, rows].to(torch.uint8).argmin(dim=0)
            now = int(stage.min())
            self._attack(now, rows[stage == now])
            self._share()
        attacked = self.findings.found | self.done.all(dim=0)
        return self.standard.proposal(attacked)

    def _rows(self) -> Tensor:
        """What is to be attacked, int64: not broken, and not attacked by all."""
        left = ~self.findings.found
        if self.problem.bracket:
            highest = torch.zeros_like(left)
            found = self.findings.found.tolist()
            tops = [next((r for r in reversed(rungs) if not found[r]), -1) for rungs in self.ladders]
            highest[[top for top in tops if top >= 0]] = True
            left &= highest
        return torch.where(left & ~self.done.all(dim=0))[0]

    def _attack(self, stage: int, rows: Tensor) -> None:
        member, findings = self.members[stage], self.findings
        if member == "fab-t":
            same = self.examples[:, None] == self.examples[None]
            first = torch.tensor([r for r in self._firsts(rows)], device=rows.device)
            self.standard.boundary(first, same[first] & ~findings.found)
            self.done[stage] |= same[first].any(dim=0)
            return
        self.done[stage, rows] = True
        if member == "square":
            before = findings.found.clone()
            self.standard.square(rows, self.queries)
            self._suspect(findings.found & ~before)
        else:
            chained = self.problem.bracket and member == "apgd-ce"
            self.standard.run(member, rows, self._descend if chained else None)

    def _firsts(self, rows: Tensor) -> list[int]:
        """One row of each example."""
        return list(dict(zip(self.examples[rows].tolist(), rows.tolist(), strict=True)).values())

    def _descend(self, gone: Tensor) -> list[int]:
        """APGD-CE goes on with the next smaller epsilon where it broke one."""
        found = self.findings.found
        lower = [self.lower.get(row, -1) for row in gone[found[gone]].tolist()]
        chosen = [row for row in lower if row >= 0 and not bool(found[row])]
        self.done[self.members.index("apgd-ce"), chosen] = True
        return chosen

    def _share(self) -> None:
        """What broke an example at a smaller epsilon is its candidate at the larger ones."""
        found = self.findings.found.tolist()
        for rungs in self.ladders:
            for low, high in _pairs(rungs):
                if found[low] and not found[high]:
                    self.findings.take(high, low)
                    found[high] = True

    def _suspect(self, broken: Tensor) -> None:
        """Square should not find what gradients do not, at any epsilon."""
        for epsilon in self.findings.radii.unique():
            here = self.findings.radii == epsilon
            if int(broken[here].sum()) > LOWERED * int(here.sum()):
                if SQUARE not in self.standard.flags and len(self.members) > 1:
                    self.standard.flags.append(SQUARE)

    def _ladders(self) -> list[list[int]]:
        """The rows of each example, by epsilon."""
        ladders: dict[int, list[int]] = {}
        for row in self.findings.radii.argsort(stable=True).tolist():
            ladders.setdefault(int(self.examples[row]), []).append(row)
        return list(ladders.values())


def _pairs(rungs: list[int]) -> zip[tuple[int, int]]:
    return zip(rungs[:-1], rungs[1:], strict=True)
