"""The rule: from evidence to a verdict on the worst case, and to a mark for each attack.

It is written out in `docs/verdict.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bench.trust.case import attacked, hits, marked
from bench.trust.evidence import FAMILIES, RANDOM, allowed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

Level = Literal["credible", "broken", "suspect", "unreliable"]
Mark = Literal["credible", "misled", "failed"]

#: Sentences given with a verdict, at most.
REASONS = 3
#: Fresh draws on which a randomised defense has to be judged.
DRAWS = 100
#: Faults that a defense's own surrogates get around.
_NO_GRADIENT = frozenset({"zero-margin-gradient", "unavailable-gradients"})


@dataclass(frozen=True)
class Verdict:
    """Whether a worst-case figure can be believed."""

    level: Level
    reasons: tuple[str, ...]
    """The strongest, a sentence each."""
    families: tuple[str, ...] = ()
    """Of the evidence that set it."""

    def to_json(self) -> dict[str, Any]:
        """For `summary.json`."""
        return {
            "level": self.level,
            "reasons": list(self.reasons),
            "families": list(self.families),
        }


def verdict(evidence: Sequence[Evidence], case: Case) -> Verdict:
    """Judge the worst case at the headline epsilon.

    Args:
        evidence: of the final outcomes, after escalation.
        case: the final outcomes.
    """
    if case.shown == 0 or (case.at_chance and not case.few_classes):
        return Verdict("broken", (_broken(case),))
    found = _weighed(evidence, case)
    return _at_chance(found, evidence, case) if case.at_chance else found


def _at_chance(found: Verdict, evidence: Sequence[Evidence], case: Case) -> Verdict:
    """The word for a figure at chance among few classes, which may be far above the bottom.

    It is `broken` once evidence asked for nothing stronger, or stronger attacks found next to
    nothing more; what still speaks against the figure stands beside it.
    """
    doubts = found.reasons if found.families else ()
    if case.rising or len(case.imported) >= allowed(case.n):
        return found
    if case.rounds or not any(item.counts for item in evidence):
        return Verdict("broken", (_broken(case), *doubts)[:REASONS], found.families)
    untried = "No stronger attack followed the evidence against it: it may be far lower."
    level = "suspect" if found.level == "credible" else found.level
    return Verdict(level, (_broken(case), untried, *doubts)[:REASONS], found.families)


def _weighed(evidence: Sequence[Evidence], case: Case) -> Verdict:
    """What the evidence says, whatever the figure."""
    counting = [item for item in evidence if item.counts]
    by_chance = any(item.id == "randomised" for item in counting)
    settled = by_chance and evaluated_over_draws(case)
    if settled:
        counting = [item for item in counting if item.id not in RANDOM]
    faults = [item for item in counting if item.weight == "deterministic"]
    soft = [item for item in counting if item.weight == "soft"]
    families = tuple(sorted({item.family for item in (*faults, *soft)}))
    reasons = _reasons([*faults, *soft])
    if case.rising:
        share = case.rounds[-1] / case.n
        more = f"The last round of stronger attacks still broke {share:.0%} of the examples: "
        return Verdict("unreliable", (more + "no bottom is reached.", *reasons[:2]), families)
    missed = len(case.imported)
    if missed >= allowed(case.n):
        more = f"Adversarial examples from elsewhere broke {missed} that no attack of the run did: "
        return Verdict("unreliable", (more + "no bottom is reached.", *reasons[:2]), families)
    if any(_grave(item, case) for item in faults):
        return Verdict("unreliable", reasons, families)
    if faults or len({item.family for item in soft}) >= FAMILIES:
        return Verdict("suspect", reasons, families)
    if by_chance and not settled:
        missing = f"It was not attacked over its draws and judged on {DRAWS} fresh ones."
        return Verdict("suspect", (*reasons[:2], missing), families)
    calm = "Attacks on the model's gradient, and those without it, agree."
    if soft:
        alone = "A single family of evidence speaks against it: " + reasons[0]
        return Verdict("credible", (alone,), families)
    return Verdict("credible", (calm,))


def evaluated_over_draws(case: Case) -> bool:
    """Whether a randomised defense was attacked over its draws and judged on enough fresh ones."""
    tables = [f for a, f in case.at(case.headline).items() if case.declared(a).over_draws]
    return any(
        table["draws"][table["attacked"]].min() >= DRAWS
        for table in tables
        if table["attacked"].any()
    )


def attack_marks(case: Case, evidence: Sequence[Evidence]) -> dict[str, Mark]:
    """A mark for every attack at the headline epsilon.

    `failed`: it raised, or followed a gradient that is zero or missing on as many examples as the
    tolerance. `misled`: evidence of two families, or a fault, speaks against the defense, and
    attacks that do without the model's own gradient break as many more. `credible`: neither.
    """
    marks: dict[str, Mark] = {}
    for cell in case.failures:
        if cell.epsilon == case.headline.text:
            marks[cell.label] = "failed"
    counting = [item for item in evidence if item.counts]
    doubted = len({item.family for item in counting}) >= FAMILIES or any(
        item.weight == "deterministic" for item in counting
    )
    others: set[int] = set()
    for table in case.at(
        case.headline, approaches=["smoothed", "surrogate", "transfer", "scores", "noise"]
    ).values():
        others |= hits(table)
    for attack, table in case.at(case.headline).items():
        mark: Mark = "credible"
        if case.approach(attack) == "gradient":
            left = attacked(table) - hits(table)
            if len(left & _flat(case, attack)) >= allowed(case.n):
                mark = "failed"
            elif doubted and len(left & others) >= allowed(case.n):
                mark = "misled"
        marks.setdefault(attack, mark)
    return dict(sorted(marks.items()))


def _flat(case: Case, attack: str) -> set[int]:
    """The examples at which the loss that an attack lowers has no gradient."""
    measured = case.measured("zero_margin_gradient")
    if measured is None:
        return set()
    _, table = measured
    found = marked(table, "zero_margin_gradient") | marked(table, "no_gradient")
    if case.declared(attack).lowers == "cross-entropy":
        found |= marked(table, "zero_ce_gradient")
    return found


def _grave(item: Evidence, case: Case) -> bool:
    """Whether a fault reaches more examples than the tolerance, and nothing got around it."""
    if item.id in _NO_GRADIENT and case.at(case.headline, approaches=["surrogate"]):
        return False
    if not item.threshold:  # it is not about single examples
        return True
    return (item.measured or 0) >= min(allowed(case.n), item.n)


def _reasons(items: Sequence[Evidence]) -> tuple[str, ...]:
    """The strongest sentence of each family, faults first, and randomness, which explains others.

    What else is strong comes after those.
    """

    def rank(item: Evidence) -> tuple[bool, bool, float]:
        return item.weight != "deterministic", item.id != "randomised", -item.excess

    ordered = sorted(items, key=rank)
    first: dict[str, Evidence] = {}
    for item in ordered:
        first.setdefault(item.family, item)
    chosen = [*first.values(), *(item for item in ordered if item not in first.values())]
    return tuple(dict.fromkeys(item.sentence for item in chosen))[:REASONS]


def _broken(case: Case) -> str:
    return (
        f"{case.shown:.4g} of {case.n} examples survive, no more than by guessing among "
        f"{case.classes} classes: the claim is gone."
    )
