"""The cells that evidence needs at the headline epsilon, whatever attacks a user asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import registry
from bench.errors import WinnowError
from bench.threat import Epsilon, Norm
from bench.trust.case import CLEAN, attacked, bare
from bench.trust.evidence import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.trust.case import Case

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
