"""Records in, Markdown out: pure functions, and the one that writes leaderboards.

Leaderboards: ranked tables of what may be compared, and nothing else side by side.

Publishing: a finished run's summary, copied to where it is committed.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from bench.errors import StoreError, StoreWarning
from bench.record.files import locked, read_json, write_bytes
from bench.record.older import upgraded
from bench.record.schema import SCHEMA_VERSION
from bench.record.store import open_run
from bench.report.markdown import caveats, render_defense
from bench.report.ranking import ranked_tables
from bench.report.writing import Summary, escape, interval, percent, table

if TYPE_CHECKING:
    from pathlib import Path

    from bench.report.ranking import Ranked, RankedTable

__all__ = ["read_summaries", "render_leaderboard", "summaries_in", "write_leaderboard"]


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


def render_leaderboard(summaries: list[Summary]) -> str:
    """The ranked tables of some runs, each with the matrices of its defenses.

    The same runs give the same bytes, in whatever order they come.
    """
    parts = ["# Leaderboard"]
    for found in ranked_tables(summaries):
        parts += ["", *_table(found)]
    return "\n".join(parts) + "\n"


def _table(found: RankedTable) -> list[str]:
    summary, attack_set = found.first.summary, found.first.attack_set
    rows = [[str(rank), *_row(row)] for rank, row in enumerate(found.rows, start=1)]
    attacks = ", ".join(escape(attack) for attack in attack_set) or "none"
    judging = summary["judging"]
    return [
        f"## {escape(summary['dataset'])}, {escape(summary['norm'])} "
        f"ε = {escape(summary['headline'])}",
        "",
        table(HEADER, rows, text=TEXT),
        "",
        f"Worst case over {len(attack_set)} attacks: {attacks}. "
        f"Data {summary['data_digest'][:12]}, judged in {escape(judging['precision'])} "
        f"on {escape(judging['device'])}.",
        *(line for note in found.data_notes for line in ("", f"Data: {escape(note)}.")),
        *(
            line
            for entry in found.entries
            for line in ("", render_defense(entry.summary, entry.name))
        ),
    ]


def _row(row: Ranked) -> list[str]:
    """The cells of a row, but for its rank."""
    entry = row.first
    return [
        escape(entry.name),
        escape(entry.defense["network"]),
        percent(entry.defense["clean_accuracy"]),
        f"**{interval(row.worst)}**" + caveats(row.worst_cases),
        escape(row.verdict),
        escape(row.lowest),
        str(entry.summary["n"]),
        f"{row.passes:,.0f}",
        entry.defense["weights_digest"][:8],
        ", ".join(each.summary["run"][:8] for each in row.entries),
    ]


def read_summaries(folder: Path) -> list[Summary]:
    """The summaries of all finished runs below a folder: see `summaries_in`."""
    return [*summaries_in(folder).values()]


def summaries_in(folder: Path) -> dict[Path, Summary]:
    """The summaries of all finished runs below a folder, by the folder of each.

    One that cannot be read or shown is left out, and named by a `StoreWarning`: it must not spoil
    the tables of the others.
    """
    summaries = {}
    for path in sorted(folder.glob("*/summary.json")):
        try:
            summary = _summary(path)
        except StoreError as error:
            warnings.warn(f"left out of the leaderboard: {error}", StoreWarning, stacklevel=2)
            continue
        if summary is not None:
            summaries[path.parent] = summary
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
