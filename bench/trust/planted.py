"""Power: how many adversarial examples that are known to exist attacks find in this very model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api import PLANTED
from bench.record.results import is_randomised
from bench.trust.case import attacked, marked, values
from bench.trust.comparisons import again
from bench.trust.evidence import Check, allowed

if TYPE_CHECKING:
    from bench.record.results import Table
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

ZIMMERMANN = "Zimmermann et al., Increasing Confidence (NeurIPS 2022)"
CHECK = Check(
    "planted-examples", "optimisation", "Gradient attacks find planted examples", ZIMMERMANN
)
#: Of the examples that were looked at, the share for which one has to be planted.
ENOUGH = 0.5
#: Where random search finds a larger share, finding them says nothing.
CHANCE = 0.5


@dataclass(frozen=True)
class Power:
    """What was planted at one epsilon, and what found it."""

    epsilon: str
    """As written."""
    planted: int
    """Examples."""
    found: dict[str, int]
    """By each attack that ran, in the options with which it searched here."""
    together: int
    """Found by at least one of them, as the worst case counts."""

    def to_json(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {
            "epsilon": self.epsilon,
            "planted": self.planted,
            "found": self.found,
            "together": self.together,
        }


def power(case: Case) -> Power | None:
    """The power of the attacks that ran at the headline epsilon; None where it is not known."""
    measured = case.measured("planted")
    if measured is None or _why_not(case, measured[1]):
        return None
    ran = set(map(_plugin, case.at(case.headline)))
    found = {name: hits for name, hits in _found(measured[1]).items() if _plugin(name) in ran}
    if not found:
        return None
    return Power(
        epsilon=case.headline.text,
        planted=len(marked(measured[1], "planted")),
        found={name: len(hits) for name, hits in found.items()},
        together=len(set().union(*found.values())),
    )


def planted_examples(case: Case) -> Evidence:
    """Attacks on the model's own gradient find what is known to be there."""
    measured = case.measured("planted")
    if measured is None:
        return CHECK.not_run(f"nothing was planted at epsilon {case.headline}")
    attack, table = measured
    if why := _why_not(case, table):
        return CHECK.not_run(why)
    own = {record.name for record in case.attacks.values() if record.approach == "gradient"}
    if not any(_plugin(name) in own for name in _found(table)):
        return CHECK.not_run("no attack on the model's own gradient searched them")

    def missed(repeat: int) -> set[int] | None:
        repeated = case.measured("planted", repeat)
        if repeated is None:
            return None
        found = _found(repeated[1])
        seen = [hits for name, hits in found.items() if _plugin(name) in own]
        return marked(repeated[1], "planted") - set().union(*seen)

    n = len(marked(table, "planted"))
    return CHECK.recurring(
        missed,
        n,
        lambda count: (
            f"Of {n} adversarial examples planted in the model, attacks on its gradient missed "
            f"{count}: they miss what is there."
        ),
        again(case, [attack]),
    )


def _why_not(case: Case, table: Table) -> str | None:
    """Why what was found of planted examples says nothing, or None."""
    looked, planted = len(attacked(table)), len(marked(table, "planted"))
    asked = case.measured("logits_differ_repeat")
    if is_randomised(case.results) or (
        asked is not None
        and len(marked(asked[1], "logits_differ_repeat")) >= allowed(len(attacked(asked[1])))
    ):
        return "the model is randomised: what is planted by one answer is not there in the next"
    if planted < max(1, ENOUGH * looked):
        return f"they could be planted for {planted} of {looked} examples only"
    if len(marked(table, "planted_by_chance")) > CHANCE * planted:
        return "random search finds them"
    return None


def _found(table: Table) -> dict[str, set[int]]:
    """The examples whose planted one each attack found, those planted for none left out."""
    columns = [name.removeprefix("extra_") for name in sorted(table) if name.startswith("extra_")]
    return {
        column.removeprefix(PLANTED): marked(table, column)
        for column in columns
        if column.startswith(PLANTED) and values(table, column).size
    }


def _plugin(name: str) -> str:
    """A plugin's name, without options."""
    return name.partition("[")[0]
