"""A defense beside its twin, the same architecture and training with ReLU, on the same examples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.trust.case import approach
from bench.trust.evidence import Check

if TYPE_CHECKING:
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence

Z95 = 1.959963984540054
SOURCE = "McNemar (1947), exact; interval: Bonett and Price (2012)"


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
    """Exact two-sided McNemar: how likely a split this uneven is if both are alike."""
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
            f"{claim}: {points} ({interval}; McNemar p = {self.p:.2g}). One checkpoint a side: "
            f"this holds for these two checkpoints only, not for the defense.{unfair}"
        )

    def to_json(self) -> dict[str, Any]:
        """For `summary.json`."""
        fields = {**vars(self), "missing": list(self.missing)}
        return {**fields, "sentence": self.sentence}


def compare(case: Case) -> Comparison | None:
    """The comparison; None without a twin on the same examples."""
    twin = case.twin
    if twin is None or twin.n != case.n:
        return None
    broken, other = case.broken_at(case.headline), twin.broken_at(case.headline)
    gained, lost = len(other - broken), len(broken - other)
    low, high = paired_interval(gained, lost, case.n)
    ours, theirs = (
        {a for a in side.at(case.headline) if approach(a) not in ("surrogate", "transfer")}
        for side in (case, twin)
    )
    return Comparison(
        defense=case.name,
        twin=twin.name,
        n=case.n,
        only_defense=gained,
        only_twin=lost,
        difference=(gained - lost) / case.n,
        low=low,
        high=high,
        p=mcnemar(gained, lost),
        missing=tuple(sorted(ours - theirs)),
    )


def twin_evidence(case: Case) -> Evidence:
    """Credit beside the twin, apart from the verdict; `fail` means that it is not more robust."""
    check = Check("twin-comparison", "twin", "More robust than the ReLU twin", SOURCE, "context")
    found = compare(case)
    if found is None:
        return check.not_run("not applicable: no twin was evaluated on the same examples")
    better = found.p < 0.05 and found.difference > 0
    return check.stated(
        better, measured=found.difference, threshold=0.0, n=case.n, words=found.sentence
    )


def paired_interval(gained: int, lost: int, n: int, z: float = Z95) -> tuple[float, float]:
    """Adjusted Wald interval of a difference of paired proportions (Bonett and Price 2012).

    Args:
        gained: pairs with a success on the first side only.
        lost: pairs with a success on the second side only.
        n: all pairs.
        z: the standard normal quantile.
    """
    p, q = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = z * math.sqrt((p + q - (p - q) ** 2) / (n + 2))
    return max(-1.0, p - q - half), min(1.0, p - q + half)


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p: the binomial test of `gained` among the discordant pairs at 1/2."""
    discordant, fewer = gained + lost, min(gained, lost)
    tail = sum(math.comb(discordant, k) for k in range(fewer + 1))
    return min(1.0, float(2 * tail / 2**discordant))
