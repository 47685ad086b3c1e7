"""Stronger work where evidence says that attacks failed, on what they left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.trust.evidence import Request
from bench.trust.requests import possible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

#: A round that breaks a smaller share of all examples is the last.
WORTHWHILE = 0.01
#: What each round tries, the cheapest first.
ROUNDS = (
    ("surrogate", "fd-pgd", "averaged-pgd"),
    (
        "fd-pgd[preset=medium]",
        "surrogate[preset=full]",
        "margin-pgd[restarts=30]",
        "square[queries=20000,restarts=3]",
    ),
    (
        "fd-pgd[preset=medium,restarts=5]",
        "averaged-pgd[preset=full]",
        "square[queries=20000,restarts=10]",
    ),
)
#: Where the model is randomised, before the others of the first round.
RANDOMISED = ("eot-pgd",)


def escalate(evidence: Sequence[Evidence], case: Case, round: int) -> list[Request]:  # noqa: A002
    """The stronger attacks of a round, on what nothing broke; empty where there is no need.

    There is none when no evidence speaks against the figure, when the figure is at chance, when
    the last round broke less than 1 % of all examples, and after the last round.

    Args:
        evidence: of the outcomes so far.
        case: the outcomes so far.
        round: from 1.
    """
    counting = [item for item in evidence if item.counts]
    if not counting or case.at_chance or case.robust == 0:
        return []
    if case.rounds and not worthwhile(case.rounds[-1], case.n):
        return []
    for number in range(round - 1, len(ROUNDS)):
        names = list(ROUNDS[number])
        if number == 0 and any(item.id == "randomised" for item in counting):
            names = [*RANDOMISED, *names]
        able = possible(names, norm=case.norm, shape=case.shape, classes=case.classes)
        new = [name for name in able if case.here(name) is None]
        if new:
            return [Request(name, case.headline.text, scope="remaining") for name in new]
    return []


def worthwhile(broken: int, n: int) -> bool:
    """Whether a round that broke so many of n examples calls for another."""
    return broken >= WORTHWHILE * n
