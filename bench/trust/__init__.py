"""Is the number right? Outcomes in, evidence and a verdict out; nothing here runs an attack.

A run asks `requests` which cells to measure besides the user's, gathers `evidence_of` its
outcomes, repeats what `pending` names with a fresh seed, lets `escalate` ask for stronger work,
and ends with `verdict` and `attack_marks` (the rule: `docs/verdict.md`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import registry
from bench.errors import WinnowError
from bench.threat import Epsilon, Norm
from bench.trust.case import CLEAN, Case, attacked, bare
from bench.trust.comparisons import Comparison, compare, twin_evidence
from bench.trust.evidence import Evidence, Request, allowed, pending, worthwhile
from bench.trust.measurements import behaviour, indicators
from bench.trust.sanity import sanity
from bench.trust.verdict import Verdict, attack_marks, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


__all__ = [
    "Case",
    "Comparison",
    "Evidence",
    "Request",
    "Verdict",
    "allowed",
    "attack_marks",
    "behaviour",
    "compare",
    "escalate",
    "evidence_of",
    "indicators",
    "pending",
    "requests",
    "sanity",
    "twin_evidence",
    "verdict",
]


def evidence_of(case: Case) -> list[Evidence]:
    """Every item, those that could not run included: sanity tests, indicators, behaviour, twin."""
    return [*sanity(case), *indicators(case), *behaviour(case), twin_evidence(case)]


#: Measured at the headline epsilon, in this order.
MEASURED = (
    "probe-gradients",
    "probe-behaviour",
    "fgsm",
    "pgd",
    "pgd[steps=80]",
    "uniform-noise[draws=100]",
    "apgd-ce",
    "apgd-t",
    "margin-pgd",
)


#: Run where the standard attack is not.
CHEAPER = {"square": "square[queries=1000]"}


#: Free to move: the first that can run.
FREE = ("margin-pgd", "pgd")


def requests(case: Case) -> list[Request]:
    """What to run besides what the case has, in an order that does not matter.

    Args:
        case: the outcomes of the user's own attacks.
    """
    have = [attack for attack in case.at(case.headline) if attack not in _partial(case)]
    wanted = [
        *MEASURED,
        *(cheap for name, cheap in CHEAPER.items() if name not in map(bare, have)),
    ]

    def able(names: Iterable[str]) -> list[str]:
        return possible(names, norm=case.norm, shape=case.shape, classes=case.classes)

    found = [Request(name, case.headline.text) for name in able(wanted)]
    wide = [Epsilon.parse("0.5")] if case.norm is Norm.LINF else []
    wide += [case.unbounded] if case.unbounded is not None else []
    written = {epsilon: epsilon.text for epsilon in case.epsilons}
    written |= {Epsilon.parse(e): e for a, e, _ in case.cells if a != CLEAN[0]}
    found += [Request(name, written.get(at, at.text)) for at in wide for name in able(FREE)[:1]]
    return [
        request
        for request in dict.fromkeys(found)
        if (request.attack, request.epsilon, 0) not in case.cells
    ]


def _partial(case: Case) -> set[str]:
    """The attacks that were tried on what others had left only."""
    everything = case.n - len(case.clean_errors)
    return {a for a, f in case.at(case.headline).items() if len(attacked(f)) < everything}


def possible(
    names: Iterable[str], *, norm: Norm, shape: tuple[int, int, int] | None, classes: int
) -> list[str]:
    """The canonical names of those attacks that are there and can run here, each once."""
    found = []
    for name in names:
        try:
            attack = registry.attacks.create(name)
        except WinnowError:
            continue
        if shape is None or attack.why_not(norm=norm, shape=shape, classes=classes) is None:
            found.append(attack.name)
    return list(dict.fromkeys(found))


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
