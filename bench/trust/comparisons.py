"""What one attack broke and others did not, at the headline epsilon, and again with a fresh seed.

Every comparison is on the attacks' own outcomes, example by example. A defense is compared with its
twin as well, the same architecture and training with ReLU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.record.statistics import mcnemar, paired_interval, paired_t
from bench.trust.case import hits
from bench.trust.evidence import Check, allowed, asked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from bench.api.attacks import Approach
    from bench.record.schema import Cell
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

CARLINI = "Carlini et al., On Evaluating Adversarial Robustness (2019)"


FLAT = (
    "the cross-entropy has no gradient here, so that attacks on it fail by themselves; those on "
    "the margin are compared instead"
)


def white_box(case: Case) -> list[str]:
    """The attacks on the model's own gradient that have outcomes at the headline epsilon.

    Of a randomised model that is the mean gradient over its draws as well.
    """
    return sorted(
        attack
        for attack in case.at(case.headline)
        if case.approach(attack) == "gradient"
        or (case.randomised and case.declared(attack).over_draws)
    )


def broken_by(case: Case, attacks: Iterable[str], repeat: int = 0) -> set[int]:
    """The union of what attacks broke; those without this repeat count with the run's own seed."""
    found: set[int] = set()
    for attack in attacks:
        table = case.here(attack, repeat)
        table = case.here(attack) if table is None else table
        if table is not None:
            found |= hits(table)
    return found


def again(case: Case, attacks: Iterable[str]) -> list[Cell]:
    """These attacks at the headline epsilon with a fresh seed, where that can find anything new.

    None are left where all of them would find the same: a failure is then final as it stands.
    """
    return [asked(attack, case.headline.text, 1) for attack in attacks if differs(case, attack)]


def differs(case: Case, attack: str) -> bool:
    """Whether another seed can find something else."""
    return case.randomised or not case.declared(attack).deterministic


def finder(
    case: Case,
    stronger: Callable[[int], set[int]],
    baseline: Callable[[int], set[int]],
    fresh: Sequence[str],
) -> Callable[[int], set[int] | None]:
    """What `stronger` broke and `baseline` did not; None where no fresh cell has this repeat."""

    def find(repeat: int) -> set[int] | None:
        if repeat and all(case.here(attack, repeat) is None for attack in fresh):
            return None
        return stronger(repeat) - baseline(repeat)

    return find


def flat(case: Case, attacks: Iterable[str]) -> bool:
    """Whether these attacks all lower a cross-entropy that has no gradient on this model."""
    only = all(case.declared(attack).lowers == "cross-entropy" for attack in attacks)
    return only and len(case.flat_cross_entropy) >= allowed(case.n)


def strong(case: Case, attacks: Iterable[str]) -> list[str]:
    """Those that others have to be measured against."""
    return [attack for attack in attacks if case.declared(attack).strength == "strong"]


def _worth_repeating(case: Case, attack: str) -> bool:
    """Whether a fresh seed of it tells what gradient attacks missed by chance."""
    record = case.declared(attack)
    examined = record.examined and record.strength == "ordinary"
    return (record.strength == "strong" or examined) and not record.deterministic


def beyond_white_box(case: Case, check: Check, challengers: Sequence[str], what: str) -> Evidence:
    """The challenger that broke most of what no attack on the model's own gradient could.

    With a fresh seed it is the white-box attacks that run again: that the challenger's examples
    are adversarial is certain, and what a rerun of gradient attacks finds was missed by chance.

    Args:
        case: the defense.
        check: the test that it is.
        challengers: attacks with outcomes at the headline epsilon.
        what: what is missing where there are none.
    """
    union = white_box(case)
    challengers = [attack for attack in challengers if attack not in union]
    if not challengers:
        return check.not_run(f"no {what} ran at epsilon {case.headline}")
    if not strong(case, union):
        return check.not_run("no strong white-box attack ran that it could be measured against")
    if flat(case, union):
        return check.not_run(FLAT)
    known = broken_by(case, union)
    best = max(challengers, key=lambda attack: len(broken_by(case, [attack]) - known))
    fresh = [attack for attack in union if _worth_repeating(case, attack)]
    find = finder(
        case,
        lambda _: broken_by(case, [best]),
        lambda repeat: broken_by(case, union, repeat),
        fresh,
    )
    return check.recurring(
        find,
        case.n,
        lambda count: (
            f"{case.spoken(best)} broke {count} examples that no attack on the model's own "
            "gradient could: gradients mislead."
        ),
        again(case, fresh),
    )


def of_approach(case: Case, *approaches: Approach) -> list[str]:
    """Attacks with outcomes at the headline epsilon by what they go by."""
    return sorted(case.at(case.headline, approaches=approaches))


#: Who proposed the comparison with a twin.
MCNEMAR = "McNemar (1947), exact; interval: Bonett and Price (2012)"


@dataclass(frozen=True)
class Comparison:
    """The worst cases of a defense and its twin at the headline epsilon, example by example."""

    defense: str
    twin: str
    n: int
    only_defense: int
    """Examples on which the defense is robust and the twin is not."""
    only_twin: int
    """Examples on which the twin is robust and the defense is not."""
    difference: float
    """Robust accuracy of the defense minus the twin's."""
    low: float
    """Of its 95 % interval."""
    high: float
    p: float
    """By the test below, two-sided: how likely a difference this large is if both are alike."""
    test: str = "McNemar"
    """`McNemar`, exact; where a side is randomised what `paired_t` took of fractions of draws."""
    missing: tuple[str, ...] = ()
    """Attacks that the defense got and the twin did not, but for those that a twin cannot get."""

    @property
    def sentence(self) -> str:
        """What the comparison says, and what it does not."""
        points = f"{100 * self.difference:+.1f} points"
        interval = f"95 % interval {100 * self.low:+.1f} to {100 * self.high:+.1f}"
        if self.p < 0.05:
            more = "more" if self.difference > 0 else "less"
            claim = f"{self.defense} is {more} robust than its twin {self.twin}"
        else:
            claim = f"{self.defense} does not differ from its twin {self.twin}"
        unfair = ""
        if self.missing:
            unfair = f" The twin did not get {', '.join(self.missing)}."
        return (
            f"{claim}: {points} ({interval}; {self.test} p = {self.p:.2g}). One checkpoint a side: "
            f"this holds for these two checkpoints only, not for the defense.{unfair}"
        )

    def to_json(self) -> dict[str, Any]:
        """For `summary.json`."""
        fields = {**vars(self), "missing": list(self.missing)}
        return {**fields, "sentence": self.sentence}


def compare(case: Case) -> Comparison | None:
    """The comparison; None without a twin on the same examples.

    Of a randomised side it compares what tables show, the mean over draws; which examples are
    robust on one side alone is told by most of the draws.
    """
    twin = case.twin
    if twin is None or twin.n != case.n:
        return None
    broken, other = case.broken_at(case.headline), twin.broken_at(case.headline)
    gained, lost = len(other - broken), len(broken - other)
    difference = (gained - lost) / case.n
    (low, high), p = paired_interval(gained, lost, case.n), mcnemar(gained, lost)
    test = "McNemar"
    if case.randomised or twin.randomised:
        difference, low, high, p, test = paired_t((case.right - twin.right).tolist())
    ours, theirs = (
        {a for a in side.at(case.headline) if side.approach(a) not in ("surrogate", "transfer")}
        for side in (case, twin)
    )
    return Comparison(
        defense=case.name,
        twin=twin.name,
        n=case.n,
        only_defense=gained,
        only_twin=lost,
        difference=difference,
        low=low,
        high=high,
        p=p,
        test=test,
        missing=tuple(sorted(ours - theirs)),
    )


def twin_evidence(case: Case) -> Evidence:
    """Credit beside the twin, apart from the verdict; `fail` means that it is not more robust."""
    check = Check("twin-comparison", "twin", "More robust than the ReLU twin", MCNEMAR, "context")
    found = compare(case)
    if found is None:
        return check.not_run("not applicable: no twin was evaluated on the same examples")
    better = found.p < 0.05 and found.difference > 0
    return check.stated(
        better, measured=found.difference, threshold=0.0, n=case.n, words=found.sentence
    )
