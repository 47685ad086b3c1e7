"""Records in, Markdown out: pure functions, and the one that writes leaderboards.

Leaderboards: ranked tables of what may be compared, and nothing else side by side.

Results share a table when data, norm, epsilon, judging and attack set agree. Runs of the same
weights are one row, whose worst case is the per-example AND over them.

Publishing: a finished run's summary, copied to where it is committed.
"""

from __future__ import annotations

import json
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import StoreError, StoreWarning
from bench.record.files import digest_of, locked, read_json, write_bytes
from bench.record.schema import SCHEMA_VERSION
from bench.record.store import open_run
from bench.record.summary import NOT_EXAMINED, proportion, upgraded
from bench.report.markdown import (
    Summary,
    caveats,
    escape,
    interval,
    percent,
    render_defense,
    strongest,
    table,
)
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_summaries", "render_leaderboard", "write_leaderboard"]


HEADER = [
    "rank",
    "defense",
    "architecture",
    "clean %",
    "robust % (95 %)",
    "verdict",
    "lowest row",
    "n",
    "passes per example",
    "checkpoint",
    "run",
]


TEXT = frozenset({"verdict", "defense", "architecture", "lowest row", "checkpoint", "run"})


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


def render_leaderboard(summaries: list[Summary]) -> str:
    """The ranked tables of some runs, each with the matrices of its defenses.

    The same runs give the same bytes, in whatever order they come.
    """
    tables: dict[str, list[Entry]] = defaultdict(list)
    for summary in summaries:
        for name in summary["defenses"]:
            entry = Entry(summary, name)
            tables[_comparable(entry)].append(entry)
    parts = ["# Leaderboard"]
    for key in sorted(tables):
        parts += ["", *_table(tables[key])]
    return "\n".join(parts) + "\n"


def _comparable(entry: Entry) -> str:
    """What has to agree for two figures to stand in one table; sorts by what is shown."""
    summary = entry.summary
    headline = Epsilon.parse(summary["headline"])
    rest = [summary["data_digest"], summary["judging"], entry.attack_set, summary.get("budget")]
    return json.dumps(
        [summary["dataset"], summary["norm"], f"{float(headline):.9f}", digest_of(rest)]
    )


def _table(entries: list[Entry]) -> list[str]:
    first = min(entries, key=lambda entry: (entry.summary["run"], entry.name))
    summary = first.summary
    merged: dict[tuple[str, str, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        merged[entry.name, entry.defense["weights_digest"], entry.summary["n"]].append(entry)
    rows = sorted(
        (_row(group) for group in merged.values()),
        key=lambda row: (-(row[0] if row[0] is not None else -1.0), -(row[1] or 0.0), row[2]),
    )
    attacks = ", ".join(escape(attack) for attack in first.attack_set) or "none"
    judging = summary["judging"]
    return [
        f"## {escape(summary['dataset'])}, {escape(summary['norm'])} "
        f"ε = {escape(summary['headline'])}",
        "",
        table(HEADER, [[str(rank), *row[2]] for rank, row in enumerate(rows, start=1)], text=TEXT),
        "",
        f"Worst case over {len(first.attack_set)} attacks: {attacks}. "
        f"Data {summary['data_digest'][:12]}, judged in {escape(judging['precision'])} "
        f"on {escape(judging['device'])}.",
        *(line for note in _data_notes(entries) for line in ("", f"Data: {escape(note)}.")),
        *(
            line
            for entry in sorted(entries, key=lambda entry: (entry.name, entry.summary["run"]))
            for line in ("", render_defense(entry.summary, entry.name))
        ),
    ]


def _data_notes(entries: list[Entry]) -> list[str]:
    """What was passed over or chosen when the data were read, each once."""
    notes = (note for entry in entries for note in entry.summary.get("data_notes", ()))
    return list(dict.fromkeys(notes))


def _row(group: list[Entry]) -> tuple[float | None, float | None, list[str]]:
    """Robust and clean accuracy to rank by, and the cells of the row."""
    group = sorted(group, key=lambda entry: entry.summary["run"])
    entry = group[0]
    defense, summary = entry.defense, entry.summary
    headline = summary["headline"]
    worst = defense["worst_case"][headline]
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
    cells = [
        escape(entry.name),
        escape(defense["network"]),
        percent(defense["clean_accuracy"]),
        f"**{interval(worst)}**" + caveats([e.defense["worst_case"][headline] for e in group]),
        escape(_level([item.defense["worst_case"][headline] for item in group], worst)),
        escape(lowest),
        str(summary["n"]),
        f"{sum(_passes(item) for item in group) / summary['n']:,.0f}",
        defense["weights_digest"][:8],
        ", ".join(item.summary["run"][:8] for item in group),
    ]
    return worst["robust_accuracy"], defense["clean_accuracy"], cells


#: What a verdict says of a figure that several runs made together, the first that any of them has.
GRAVEST = ("broken", "unreliable", "suspect", NOT_EXAMINED, "credible")


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


def _passes(entry: Entry) -> int:
    """Forwards and backwards that a defense cost in a run, the judge's included."""
    cost = entry.defense["cost"]
    return int(cost["forwards"] + cost["backwards"])


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


def read_summaries(folder: Path) -> list[Summary]:
    """The summaries of all finished runs below a folder.

    One that cannot be read or shown is left out, and named by a `StoreWarning`: it must not spoil
    the tables of the others.
    """
    summaries = []
    for path in sorted(folder.glob("*/summary.json")):
        try:
            summary = _summary(path)
        except StoreError as error:
            warnings.warn(f"left out of the leaderboard: {error}", StoreWarning, stacklevel=2)
            continue
        if summary is not None:
            summaries.append(summary)
    return summaries


def _summary(path: Path) -> Summary | None:
    """A summary that can be shown; None for one of another schema.

    Raises:
        StoreError: it is damaged.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not a file")
    summary = read_json(path)
    if not isinstance(summary, dict) or "defenses" not in summary:
        raise StoreError(f"{path} is not the summary of a run")
    if summary.get("schema") != SCHEMA_VERSION:
        return None
    try:
        summary = upgraded(summary)
        render_leaderboard([summary])
        criticals = [part["critical"] for part in summary["defenses"].values()]
        whole = all(found is None or len(found) == summary["n"] for found in criticals)
        if not (whole and isinstance(summary["run"], str)):
            raise ValueError("its parts do not fit together")
    except Exception as error:  # whatever a damaged file makes of the rendering
        said = f"{type(error).__name__}: {error}"
        raise StoreError(f"{path} is damaged ({said}); run its command again") from error
    return summary


def write_leaderboard(folder: Path) -> Path:
    """Write `leaderboard.md` over all finished runs below a folder; give its path.

    Of runs that end at once, each waits for the other, or the later would write what it read before
    the earlier was there.

    Raises:
        StoreError: the folder cannot be written.
    """
    path = folder / "leaderboard.md"
    with locked(folder, patient=True):
        write_bytes(path, render_leaderboard(read_summaries(folder)).encode())
    return path


def publish_run(folder: Path, published: Path) -> Path:
    """Copy the summary of a finished run whose files are as its manifest says; give its path.

    Raises:
        StoreError: the run is unfinished, or a file was changed since.
    """
    store, record = open_run(folder)
    if record.status != "complete":
        raise StoreError(f"{folder} is {record.status}; finish it by running its command again")
    faults = store.manifest_faults()
    if faults:
        raise StoreError(f"{folder} does not hold what its manifest says: {faults[0]}")
    target = published / record.id / "summary.json"
    write_bytes(target, (folder / "summary.json").read_bytes())
    return target
