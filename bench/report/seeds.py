"""One table over several training seeds: mean and range, and the gain over the twin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bench.report.markdown import escape, interval, percent, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.report.markdown import Summary


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
                ", ".join(dict.fromkeys(escape(_level(entry)) for entry in entries.values())),
            ]
        )
        single += [
            [
                escape(name),
                str(seed),
                percent(entry["clean_accuracy"]),
                interval(worst[seed]),
                escape(_level(entry)),
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
    points = f"{100 * mean:+.1f} points"
    each = ", ".join(f"{100 * value:+.1f}" for value in differences)
    said = f"{escape(name)} against its twin {escape(twin)}: {points} (by seed {each})."
    if math.isfinite(low):
        zero = "excludes" if low > 0 or high < 0 else "includes"
        said += (
            f" 95 % t-interval over {len(differences)} training seeds: {100 * low:+.1f} to "
            f"{100 * high:+.1f}, which {zero} no difference at all."
        )
    return [said]


def t_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % t-interval of values that are normal around it; infinite for a single one."""
    from scipy.stats import t

    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, -math.inf, math.inf
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return mean, mean - half, mean + half


def _mean_and_range(values: Sequence[float]) -> str:
    mean = math.fsum(values) / len(values)
    return f"{percent(mean)} ({percent(min(values))}–{percent(max(values))})"


def _level(entry: dict[str, Any]) -> str:
    level: str = (entry.get("verdict") or {}).get("level", "–")
    return level
