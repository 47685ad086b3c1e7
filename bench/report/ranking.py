"""What stands in one ranked table, in which order, whatever the table is written in.

Results share a table when data, norm, epsilon, judging and attack set agree. Runs of the same
weights are one row, whose worst case is the per-example AND over them.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.record.files import digest_of
from bench.record.summary import NOT_EXAMINED, proportion
from bench.report.markdown import strongest
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from bench.report.writing import Summary

#: What a verdict says of a figure that several runs made together, the first that any of them has.
GRAVEST = ("broken", "unreliable", "suspect", NOT_EXAMINED, "credible")


class Entry(NamedTuple):
    """One defense in one run."""

    summary: Summary
    name: str

    @property
    def defense(self) -> dict[str, Any]:
        """Its part of the summary."""
        found: dict[str, Any] = self.summary["defenses"][self.name]
        return found

    @property
    def attack_set(self) -> list[str]:
        """The attacks that were asked for at the headline epsilon and could run.

        One that needs what a defense has not, such as surrogates, leaves it comparable.
        """
        headline = self.summary["headline"]
        return sorted(
            attack
            for attack, cells in self.defense["attacks"].items()
            if headline in cells
            and not cells[headline]["escalated"]
            and (
                cells[headline]["status"] != "skipped" or cells[headline]["cause"] == "inapplicable"
            )
        )


@dataclass(frozen=True)
class Ranked:
    """One row: a defense by its weights, over the runs that evaluated them."""

    entries: tuple[Entry, ...]
    """By run; the first stands for all where they agree."""
    worst: dict[str, Any]
    """Robust accuracy and interval over all of them."""
    verdict: str
    lowest: str
    """The attack whose own row is lowest; a dash where there is none."""

    @property
    def first(self) -> Entry:
        """What its runs share can be read from any of them."""
        return self.entries[0]

    @property
    def passes(self) -> float:
        """Forwards and backwards per example in all its runs, the judge's included."""
        costs = [entry.defense["cost"] for entry in self.entries]
        spent = sum(cost["forwards"] + cost["backwards"] for cost in costs)
        return float(spent / self.first.summary["n"])

    @property
    def worst_cases(self) -> list[dict[str, Any]]:
        """At the headline epsilon, by run."""
        headline = self.first.summary["headline"]
        return [entry.defense["worst_case"][headline] for entry in self.entries]


@dataclass(frozen=True)
class RankedTable:
    """What may be compared, the most robust first."""

    entries: tuple[Entry, ...]
    """Every defense of every run in it, by name and run."""
    rows: tuple[Ranked, ...]

    @property
    def first(self) -> Entry:
        """What all of them share can be read from it."""
        return min(self.entries, key=lambda entry: (entry.summary["run"], entry.name))

    @property
    def data_notes(self) -> list[str]:
        """What was passed over or chosen when the data were read, each once."""
        notes = (note for entry in self.entries for note in entry.summary.get("data_notes", ()))
        return list(dict.fromkeys(notes))


def ranked_tables(summaries: list[Summary]) -> list[RankedTable]:
    """The tables of some runs, in an order that does not depend on theirs."""
    tables: dict[str, list[Entry]] = defaultdict(list)
    for summary in summaries:
        for name in summary["defenses"]:
            entry = Entry(summary, name)
            tables[_comparable(entry)].append(entry)
    return [_table(tables[key]) for key in sorted(tables)]


def _comparable(entry: Entry) -> str:
    """What has to agree for two figures to stand in one table; sorts by what is shown."""
    summary = entry.summary
    headline = Epsilon.parse(summary["headline"])
    rest = [summary["data_digest"], summary["judging"], entry.attack_set, summary.get("budget")]
    return json.dumps(
        [summary["dataset"], summary["norm"], f"{float(headline):.9f}", digest_of(rest)]
    )


def _table(entries: list[Entry]) -> RankedTable:
    merged: dict[tuple[str, str, int], list[Entry]] = defaultdict(list)
    entries = sorted(entries, key=lambda entry: (entry.name, entry.summary["run"]))
    for entry in entries:
        merged[entry.name, entry.defense["weights_digest"], entry.summary["n"]].append(entry)
    rows = sorted(map(_ranked, merged.values()), key=_order)
    return RankedTable(tuple(entries), tuple(rows))


def _order(row: Ranked) -> tuple[Any, ...]:
    robust, clean = row.worst["robust_accuracy"], row.first.defense["clean_accuracy"]
    return -(robust if robust is not None else -1.0), -(clean or 0.0), row.first.name


def _ranked(group: list[Entry]) -> Ranked:
    headline = group[0].summary["headline"]
    worst = group[0].defense["worst_case"][headline]
    if "majority_accuracy" not in worst:  # of a randomised defense every run stands for itself
        worst = _combined([item.defense["critical"] for item in group], Epsilon.parse(headline))
    lowest = min(
        (
            (item.defense["attacks"][attack][headline]["robust_accuracy"], attack)
            for item in group
            if (attack := strongest(item.defense, headline)) != "–"
        ),
        default=(None, "–"),
    )[1]
    level = _level([item.defense["worst_case"][headline] for item in group], worst)
    return Ranked(tuple(group), worst, level, lowest)


def _level(worst: list[dict[str, Any]], together: dict[str, Any]) -> str:
    """The verdict on a figure that these runs made together: none is better than its worst part.

    Only what every one of them calls credible is, and nothing is where no example is left; a dash
    where none says anything.

    Args:
        worst: of each run.
        together: of all of them.
    """
    if together["robust_accuracy"] == 0 and all(entry.get("verdict") for entry in worst):
        return GRAVEST[0]
    levels = {entry.get("verdict") or ("" if len(worst) == 1 else NOT_EXAMINED) for entry in worst}
    return next((level for level in GRAVEST if level in levels), "–")


def _combined(criticals: list[list[float | None] | None], epsilon: Epsilon) -> dict[str, Any]:
    """The worst case over several runs of the same weights on the same examples."""
    known = [critical for critical in criticals if critical is not None]
    if not known:
        return {"robust_accuracy": None, "low": None, "high": None}
    limit = float(epsilon) + TOLERANCE
    robust = sum(
        all(distance is None or distance > limit for distance in example)
        for example in zip(*known, strict=True)
    )
    return proportion(robust, len(known[0]))
