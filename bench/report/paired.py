"""A comparison of two runs as Markdown."""

from __future__ import annotations

from typing import Any

from bench.record.statistics import SIGN_TEST, T_TEST
from bench.report.writing import escape, percent, points, table

#: Whence p and the interval are, by the test.
_TESTS = {
    "McNemar": "exact McNemar test, with the interval of Bonett and Price (2012)",
    T_TEST: "paired t-test, with its interval",
    SIGN_TEST: "sign test, as all examples differ alike, with Bonett and Price's interval",
}

#: Below this p the headline's figures are called different.
SIGNIFICANT = 0.05


def render_comparison(comparison: dict[str, Any]) -> str:
    """The comparison as Markdown."""
    runs = [escape(run) for run in dict.fromkeys(comparison["names"])]
    parts = [
        f"# {' and '.join(runs)}",
        "",
        f"{escape(comparison['dataset'])}, {escape(comparison['norm'])}, the same "
        f"{comparison['n']} examples (data {comparison['data_digest'][:12]}). Differences are "
        "first minus second, paired by example.",
    ]
    for pair in comparison["pairs"]:
        parts += ["", *_render_pair(pair)]
    parts += ["", "## What else differs between the runs", ""]
    parts.append(_render_differences(comparison["differences"]))
    return "\n".join(parts) + "\n"


def _render_pair(pair: dict[str, Any]) -> list[str]:
    one, other = map(escape, pair["defenses"])
    title = one if one == other else f"{one} and {other}"
    header = ["ε", "first %", "second %", "difference (95 %)", "only first", "only second", "p"]
    rows = []
    for epsilon, found in pair["epsilons"].items():
        mark = "" if all(found.get("complete", [True])) else " †"
        low, high = points(found["low"]), points(found["high"])
        rows.append(
            [
                escape(epsilon),
                percent(found["first"]),
                percent(found["second"]),
                f"{points(found['difference'])} ({low} to {high}){mark}",
                str(found["only_first"]),
                str(found["only_second"]),
                f"{found['p']:.2g}",
            ]
        )
    lines = [f"## {title}", "", _claim(pair), "", table(header, rows), ""]
    tests = " or ".join(
        _TESTS[test]
        for test in _TESTS
        if any(found["test"] == test for found in pair["epsilons"].values())
    )
    lines.append(
        "`only first` counts examples on which the first is robust and the second is not. "
        f"p, two-sided: {tests}. Neither it nor the interval is corrected for several epsilons."
    )
    if any(not all(found.get("complete", [True])) for found in pair["epsilons"].values()):
        lines += ["", "† some cells did not finish: a worst case may be lower."]
    lines += [line for note in pair["notes"] for line in ("", note)]
    if pair["differences"]:
        lines += ["", _render_differences(pair["differences"])]
    return lines


def _claim(pair: dict[str, Any]) -> str:
    """What the headline's figures say of the two worst cases, and no more."""
    found, epsilon = pair["epsilons"][pair["headline"]], escape(pair["headline"])
    one, other = map(escape, pair["defenses"])
    if found["p"] >= SIGNIFICANT:
        word = "does not differ significantly from"
    else:
        word = "is higher than" if found["difference"] > 0 else "is lower than"
    return (
        f"At ε = {epsilon} the worst case of {one} (first) {word} that of {other} (second): "
        f"{points(found['difference'])} points, p = {found['p']:.2g}."
    )


def _render_differences(differences: list[dict[str, Any]]) -> str:
    if not differences:
        return "Nothing that is recorded."
    rows = []
    for item in differences:
        cells = [_shown(item["what"], item[side]) for side in ("first", "second")]
        rows.append([escape(item["what"]), *cells])
    header = ["", "first", "second"]
    return table(header, rows, text=frozenset(header))


def _shown(what: str, value: object) -> str:
    if value is None or value == []:
        return "–"
    if isinstance(value, list):
        return escape(("only " if what == "attacks" else "") + ", ".join(map(str, value)))
    return escape(str(value)[:12] if what in ("weights", "commit") else value)
