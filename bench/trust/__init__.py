"""Is the number right? Outcomes in, evidence and a verdict out; nothing here runs an attack.

A run asks `requests` which cells to measure besides the user's, gathers `evidence_of` its
outcomes, repeats what `pending` names with a fresh seed, lets `escalate` ask for stronger work,
and ends with `verdict` and `attack_marks` (the rule: `docs/verdict.md`). What may be asked for is a
`Menu`, from what attacks declare; what they declared is read from the record of the run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench.record.schema import CLEAN, Cell
from bench.threat import Epsilon, Norm
from bench.trust.case import Case, cases
from bench.trust.comparisons import Comparison, compare, twin_evidence
from bench.trust.evidence import Evidence, allowed, asked, pending
from bench.trust.measurements import measurements
from bench.trust.planted import Power, power
from bench.trust.sanity import sanity
from bench.trust.verdict import Verdict, attack_marks, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Case",
    "Comparison",
    "Evidence",
    "Menu",
    "Power",
    "Verdict",
    "allowed",
    "asked",
    "attack_marks",
    "cases",
    "compare",
    "escalate",
    "evidence_of",
    "measurements",
    "pending",
    "power",
    "requests",
    "sanity",
    "twin_evidence",
    "verdict",
]


@dataclass(frozen=True)
class Menu:
    """What an examination may ask for: canonical names of attacks that can run here."""

    examination: tuple[str, ...] = ()
    """Run at the headline epsilon."""
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    """Of a plugin, what is run where the plugin was not run on all examples."""
    free: tuple[str, ...] = ()
    """Those that may move in the whole box; the first is taken."""
    escalation: tuple[tuple[str, ...], ...] = ()
    """What each round tries, the most urgent first."""
    over_draws: tuple[str, ...] = ()
    """Before the first round, where the model is randomised."""

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, each once."""
        rounds = (name for names in self.escalation for name in names)
        together = (*self.examination, *self.stand_ins.values(), *self.free, *self.over_draws)
        return tuple(dict.fromkeys([*together, *rounds]))


def evidence_of(case: Case) -> list[Evidence]:
    """Every item, those that could not run included: sanity tests, measurements, twin."""
    return [*sanity(case), *measurements(case), twin_evidence(case)]


def requests(case: Case, menu: Menu) -> list[Cell]:
    """What to run besides what the case has, in an order that does not matter.

    Args:
        case: the outcomes of the user's own attacks.
        menu: what can be run.
    """
    whole = [attack for attack, table in case.at(case.headline).items() if case.whole(table)]
    have = {case.declared(attack).name for attack in whole}
    wanted = [
        *menu.examination,
        *(name for plugin, name in menu.stand_ins.items() if plugin not in have),
        *(menu.over_draws if case.randomised else ()),
    ]
    found = [asked(name, case.headline.text) for name in wanted]
    wide = [Epsilon.parse("0.5")] if case.norm is Norm.LINF else []
    wide += [case.unbounded] if case.unbounded is not None else []
    written = {epsilon: epsilon.text for epsilon in case.epsilons}
    written |= {
        Epsilon.parse(place.epsilon): place.epsilon
        for place in case.tables
        if place.attack != CLEAN
    }
    found += [asked(name, written.get(at, at.text)) for at in wide for name in menu.free[:1]]
    return [cell for cell in dict.fromkeys(found) if case.table(cell.attack, cell.epsilon) is None]


def escalate(
    evidence: Sequence[Evidence],
    case: Case,
    menu: Menu,
    round: int,  # noqa: A002 - the word for it
) -> list[Cell]:
    """The stronger attacks of a round, on what nothing broke; empty where there is no need.

    There is none when no evidence speaks against the figure, when the figure is at chance (of at
    most one in five), when the last round broke less than 1 % of all examples, and after the last
    round.

    Args:
        evidence: of the outcomes so far.
        case: the outcomes so far.
        menu: what can be run.
        round: from 1.
    """
    counting = [item for item in evidence if item.counts]
    # Half of two classes is chance, too, and far from the bottom.
    done = case.at_chance and not case.few_classes
    if not counting or done or case.robust == 0:
        return []
    if case.rounds and not case.rising:
        return []
    wanted: list[str] = []
    for number, names in enumerate(menu.escalation[round - 1 :], round):
        new = [name for name in names if case.here(name) is None]
        if number == 1 and any(item.id == "randomised" for item in counting):
            wanted += [name for name in menu.over_draws if case.here(name) is None]
        wanted += new
        # Where something of it ran before, what is new alone might break nothing and end it all.
        if wanted and len(new) == len(names):
            break
    return [
        Cell(attack=name, epsilon=case.headline.text, scope="remaining", round=round)
        for name in wanted
    ]
