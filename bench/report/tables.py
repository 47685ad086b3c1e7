"""Stored runs as tables: all of them, one of them, and one command over several training seeds."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal

from bench.record.statistics import t_interval
from bench.report.markdown import ran
from bench.report.writing import escape, interval, percent, points, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.record.runs import StoredRun
    from bench.report.writing import Summary


#: Attacks that are named where many are unfinished for one reason.
NAMED = 5
HEADER = ["run", "date", "data", "norm", "n", "defenses", "status", "size"]


def describe(run: StoredRun) -> dict[str, Any]:
    """A run in a few words, ready for JSON."""
    found: dict[str, Any] = {
        "run": run.folder.name,
        "folder": str(run.folder),
        "status": run.state,
        "bytes": run.bytes,
    }
    if run.reason:
        found["reason"] = run.reason
    if run.record is not None:
        found |= {
            "date": run.record.provenance.get("date"),
            "dataset": run.record.dataset.name,
            "norm": run.record.norm,
            "n": run.record.dataset.n,
            "seed": run.record.seed,
            "epsilons": run.record.epsilons,
            "defenses": [name for name, d in run.record.defenses.items() if not d.control],
        }
    return found


def render_runs(runs: list[StoredRun]) -> str:
    """One line for each run."""
    rows = []
    for found in map(describe, runs):
        defenses = ", ".join(found.get("defenses", []))
        rows.append(
            [
                escape(found["run"]),
                escape(found.get("date") or "–"),
                escape(found.get("dataset", "–")),
                escape(found.get("norm", "–")),
                str(found.get("n", "–")),
                escape(defenses or "–"),
                escape(found["status"]),
                decimal(found["bytes"]),
            ]
        )
    return table(HEADER, rows, text=frozenset(HEADER) - {"n", "size"})


def status_of(run: StoredRun) -> dict[str, Any]:
    """What a run has, what is unfinished, and what continues it; ready for JSON."""
    found = describe(run)
    if run.record is None:
        return found
    cells = run.record.cells
    unfinished = [
        {"defense": c.defense, "attack": c.attack, "epsilon": c.epsilon, "status": c.status,
         "reason": c.reason}
        for c in cells if c.status in ("failed", "incomplete")
    ]  # fmt: skip
    whole = run.state == "complete" and not unfinished
    return found | {
        "cells": dict(sorted(Counter(cell.status for cell in cells).items())),
        "attacks": {
            name: sorted({c.attack for c in cells if c.defense == name and c.status == "ok"})
            for name in run.record.defenses
        },
        "unfinished": unfinished,
        "command": run.record.provenance.get("command"),
        "continue": None if whole else run.record.provenance.get("command"),
    }


def render_run(run: StoredRun, summary: Summary | None) -> str:
    """One run: its figures, where it has some, and what is missing of it."""
    found = status_of(run)
    lines = [f"# Run {escape(found['run'])}", "", f"Status: {found['status']}."]
    if run.reason:
        lines[-1] += f" {escape(run.reason)}"
    if run.record is None:
        return "\n".join(lines) + "\n"
    cells = ", ".join(f"{count} {status}" for status, count in found["cells"].items())
    lines += [
        "",
        f"{escape(found['dataset'])}, {escape(found['norm'])}, n = {found['n']}, seed "
        f"{found['seed']}, ε = {escape(', '.join(found['epsilons']))}; {escape(found['date'])}, "
        f"{decimal(found['bytes'])}. Cells: {cells}.",
        "",
        f"Command: `{_code(found['command'])}`",
    ]
    if summary is not None:
        lines += ["", _figures(summary)]
    if found["unfinished"]:
        header = ["defense", "attacks", "ε", "status", "reason"]
        rows = _gathered(found["unfinished"])
        lines += ["", "Unfinished:", "", table(header, rows, text=frozenset(header))]
    if found["continue"]:
        lines += ["", f"Continue it: `{_code(found['continue'])}`"]
    return "\n".join(lines) + "\n"


def _gathered(cells: list[dict[str, Any]]) -> list[list[str]]:
    """Unfinished cells, a row for each reason that a defense's have: attacks and epsilons by name.

    Of many attacks the first are named, and how many there are.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for cell in cells:
        key = cell["defense"], cell["status"], cell["reason"]
        groups.setdefault(key, []).append(cell)
    rows = []
    for (defense, status, reason), group in groups.items():
        attacks = list(dict.fromkeys(cell["attack"] for cell in group))
        more = f" … ({len(attacks)} attacks)" if len(attacks) > NAMED else ""
        epsilons = dict.fromkeys(cell["epsilon"] for cell in group)
        rows.append(
            [
                escape(defense),
                escape(", ".join(attacks[:NAMED])) + more,
                escape(", ".join(epsilons)),
                escape(status),
                escape(reason),
            ]
        )
    return rows


def _code(text: object) -> str:
    """Text between backticks, in one line."""
    return " ".join(str(text).replace("`", "'").split())


def _figures(summary: Summary) -> str:
    headline = summary["headline"]
    header = ["defense", "clean %", f"worst case % at ε = {escape(headline)}", "verdict", "attacks"]
    rows = [
        [
            escape(name),
            percent(part["clean_accuracy"]),
            interval(part["worst_case"][headline]),
            escape(_level(part, headline)),
            str(ran(part, headline)),
        ]
        for name, part in summary["defenses"].items()
    ]
    return table(header, rows, text=frozenset({"defense", "verdict"}))


def render_seeds(summaries: Mapping[int, Summary]) -> str:
    """Markdown: a row for each defense over all seeds, and below one for each of its seeds.

    Args:
        summaries: training seed to `summary.json`, all of one command.
    """
    first = next(iter(summaries.values()))
    headline = first["headline"]
    pooled, single = [], []
    sentences = []
    for name in first["defenses"]:
        entries = {seed: summary["defenses"][name] for seed, summary in summaries.items()}
        worst = {seed: entry["worst_case"][headline] for seed, entry in entries.items()}
        robust = [entry["robust_accuracy"] for entry in worst.values()]
        pooled.append(
            [
                escape(name),
                _mean_and_range([entry["clean_accuracy"] for entry in entries.values()]),
                f"**{_mean_and_range(robust)}**",
                ", ".join(
                    dict.fromkeys(escape(_level(entry, headline)) for entry in entries.values())
                ),
            ]
        )
        single += [
            [
                escape(name),
                str(seed),
                percent(entry["clean_accuracy"]),
                interval(worst[seed]),
                escape(_level(entry, headline)),
                entry["weights_digest"][:8],
                summaries[seed]["run"][:8],
            ]
            for seed, entry in entries.items()
        ]
        sentences += gain(name, list(entries.values()))
    over = ", ".join(map(str, summaries))
    lines = [
        f"## {escape(first['dataset'])}, {escape(first['norm'])} ε = {escape(headline)}, "
        f"training seeds {over}",
        "",
        table(
            ["defense", "clean %, mean (range)", "worst case %, mean (range)", "verdicts"],
            pooled,
            text=frozenset({"defense", "verdicts"}),
        ),
        "",
        *(line for sentence in sentences for line in (sentence, "")),
        table(
            ["defense", "seed", "clean %", "worst case % (95 %)", "verdict", "checkpoint", "run"],
            single,
            text=frozenset({"defense", "verdict", "checkpoint", "run"}),
        ),
        "",
        f"n = {first['n']}: the same examples for every seed. Ranges are the lowest and the "
        "highest of the seeds.",
    ]
    return "\n".join(lines) + "\n"


def gain(name: str, entries: Sequence[dict[str, Any]]) -> list[str]:
    """What the seeds together say of a defense and its twin; empty where some seed lacks a twin.

    Args:
        name: of the defense.
        entries: its part of each summary.
    """
    comparisons = [entry.get("comparison") for entry in entries]
    differences = [c["difference"] for c in comparisons if c is not None]
    if not differences or len(differences) < len(entries):
        return []
    twin = next(c["twin"] for c in comparisons if c is not None)
    mean, low, high = t_interval(differences)
    each = ", ".join(map(points, differences))
    said = (
        f"{escape(name)} against its twin {escape(twin)}: {points(mean)} points (by seed {each})."
    )
    if low == high:
        said += " All seeds gained the same, which does not tell how much another one would."
    elif math.isfinite(low):
        zero = "excludes" if low > 0 or high < 0 else "includes"
        ends = points(max(-1.0, low)), points(min(1.0, high))
        said += (
            f" 95 % t-interval over {len(differences)} training seeds: {' to '.join(ends)}, "
            f"which {zero} no difference at all."
        )
    return [said]


def _mean_and_range(values: Sequence[float]) -> str:
    mean = math.fsum(values) / len(values)
    return f"{percent(mean)} ({percent(min(values))}–{percent(max(values))})"


def _level(entry: dict[str, Any], epsilon: str) -> str:
    """Of the verdict on an epsilon's figure; a dash where there is none."""
    return entry["worst_case"][epsilon].get("verdict") or "–"
