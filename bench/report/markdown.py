"""A defense as Markdown: its matrix, and what a reader has to know beside it."""

from __future__ import annotations

from typing import Any

from bench.report.findings import examined, found_planted, power_of, rulings
from bench.report.writing import Summary, escape, interval, percent, table

#: Marks a figure in which some outcomes follow from another epsilon.
INFERRED = " ‡"


def render_matrix(summary: Summary, name: str) -> str:
    """One defense's matrix, attack × epsilon, robust accuracy in percent."""
    defense = summary["defenses"][name]
    epsilons: list[str] = summary["epsilons"]
    header = ["attack", *(f"ε = {escape(epsilon)}" for epsilon in epsilons), "passes"]
    shown = {
        attack: cells
        for attack, cells in defense["attacks"].items()
        if any(cell["status"] != "skipped" for cell in cells.values())
    }
    order = sorted(shown, key=lambda attack: (_strength(shown[attack], summary), attack))
    rows = [
        [
            escape(attack) + _mark(defense.get("marks", {}).get(attack)) + _asked(shown[attack]),
            *(_cell(shown[attack].get(epsilon)) for epsilon in epsilons),
            _passes(shown[attack].values()),
        ]
        for attack in reversed(order)
    ]
    rows += [
        [
            f"*{escape(suite)}, together*",
            *(percent(cells.get(epsilon, {}).get("robust_accuracy")) for epsilon in epsilons),
            "",
        ]
        for suite, cells in defense.get("suites", {}).items()
    ]
    worst = [
        f"**{percent(defense['worst_case'][epsilon]['robust_accuracy'])}**"
        + caveats([defense["worst_case"][epsilon]])
        for epsilon in epsilons
    ]
    if published := defense.get("published"):
        figure = percent(published_figure(published))
        rows.append(
            [
                f"*published by {escape(published['source'])}*",
                *(figure if epsilon == published["epsilon"] else "–" for epsilon in epsilons),
                "",
            ]
        )
    cost = defense["cost"]
    rows.append(["**worst case**", *worst, f"{cost['forwards'] + cost['backwards']:,}"])
    return table(header, rows, text=frozenset({"attack"}))


def published_figure(published: dict[str, Any]) -> float | None:
    """The robust accuracy that others published: the best known, or else the authors' own."""
    best: float | None = published["best_known"]
    own: float | None = published["reported"]
    return best if best is not None else own


def _published(defense: dict[str, Any]) -> list[str]:
    """A sentence on what others published: on their examples, not on those of this run."""
    published = defense.get("published")
    if not published:
        return []
    figures = [
        f"{label} {percent(published[key])} %"
        for label, key in (
            ("clean", "clean_accuracy"),
            ("by its authors", "reported"),
            ("AutoAttack", "autoattack"),
            ("best known", "best_known"),
        )
        if published[key] is not None
    ]
    doubt = " (marked as potentially unreliable)" if published["unreliable"] else ""
    return [
        "",
        f"Published by {escape(published['source'])} for {escape(published['norm'])} "
        f"ε = {escape(published['epsilon'])}, on all of its test examples: "
        f"{', '.join(figures)}{doubt}.",
    ]


def caveats(worst: list[dict[str, Any]]) -> str:
    """The marks of a worst case over some runs: that it is not whole, or rests on inference."""
    unfinished = "" if all(entry["complete"] for entry in worst) else " †"
    return unfinished + (INFERRED if any(entry.get("inferred") for entry in worst) else "")


def _mark(mark: str | None) -> str:
    """What an attack's figure is worth, where it is not simply to be believed."""
    return f" ({mark})" if mark in ("misled", "failed") else ""


def _asked(cells: dict[str, Any]) -> str:
    """That an attack was added by the examination, where nobody asked for it at any epsilon."""
    return " (escalation)" if all(cell["escalated"] for cell in cells.values()) else ""


def beyond_rows(defense: dict[str, Any], epsilon: str) -> str:
    """What attacks on the examples that were left broke at an epsilon; empty where nothing.

    They have no figure over all examples, so that without them a worst case can lie below every
    row with nothing to say why.
    """
    broke = [
        f"{attack} {cells[epsilon]['broken']} of {cells[epsilon]['attacked']}"
        for attack, cells in sorted(defense["attacks"].items())
        if epsilon in cells
        and cells[epsilon]["status"] == "ok"
        and cells[epsilon]["scope"] == "remaining"
        and cells[epsilon]["broken"]
    ]
    return ", ".join(broke)


def _strength(cells: dict[str, Any], summary: Summary) -> float:
    """By how much an attack lowered the figure at the headline epsilon, weakest last."""
    cell = cells.get(summary["headline"])
    if cell is None or cell["robust_accuracy"] is None:
        return -1.0
    return float(cell["robust_accuracy"])


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "–"
    if cell["status"] != "ok":
        return str(cell["status"])
    if cell["scope"] == "remaining":
        return f"−{cell['broken']} of {cell['attacked']}"
    mark = INFERRED if cell.get("source") == "inferred" else ""
    return percent(cell["robust_accuracy"]) + mark


def _passes(cells: Any) -> str:
    return f"{sum(cell['forwards'] + cell['backwards'] for cell in cells):,}"


def ran(defense: dict[str, Any], epsilon: str) -> int:
    """How many attacks added to the worst case at an epsilon, those of escalation included."""
    return sum(
        cells.get(epsilon, {}).get("status") == "ok" for cells in defense["attacks"].values()
    )


def strongest(defense: dict[str, Any], epsilon: str) -> str:
    """The attack whose own row is lowest at an epsilon; a dash where none broke anything."""
    rows = [
        (cells[epsilon]["robust_accuracy"], attack)
        for attack, cells in defense["attacks"].items()
        if epsilon in cells and cells[epsilon]["robust_accuracy"] is not None
    ]
    accuracy, attack = min(rows, default=(1.0, ""))
    clean = defense.get("clean_accuracy")
    return attack if attack and (clean is None or accuracy < clean) else "–"


def render_defense(summary: Summary, name: str) -> str:
    """A defense's section: headline figures, matrix, and notes."""
    defense = summary["defenses"][name]
    headline = summary["headline"]
    worst = defense["worst_case"][headline]
    beyond = beyond_rows(defense, headline)
    lines = [
        f"### {escape(name)} (run {summary['run'][:8]}, seed {summary['seed']})",
        "",
        f"{escape(defense['network'])}, clean accuracy {percent(defense['clean_accuracy'])} %, "
        f"**worst case {interval(worst)} %**{caveats([worst])} at ε = {escape(headline)} "
        f"({found_planted(defense)}lowest row: {escape(strongest(defense, headline))}"
        + (f"; of what was left, broken by {escape(beyond)}" if beyond else "")
        + ").",
        "",
        *rulings(summary, defense),
        render_matrix(summary, name),
        "",
        "Rows are each attack's own robust accuracy in percent over all "
        f"{summary['n']} examples; the worst case is the per-example AND over all of them.",
    ]
    if not all(entry["complete"] for entry in defense["worst_case"].values()):
        lines += ["", "† some cells did not finish: the worst case may be lower."]
    lines += (
        _published(defense)
        + power_of(defense)
        + _sweep(defense)
        + _notes(defense)
        + examined(summary, defense)
    )
    return "\n".join(lines)


def _sweep(defense: dict[str, Any]) -> list[str]:
    """What was not attacked because another epsilon tells, and what came of checking that."""
    sweep = defense.get("sweep")
    rows = any(
        cell["scope"] == "all" and cell.get("source") == "inferred"
        for cells in defense["attacks"].values()
        for cell in cells.values()
    )
    lines = []
    if rows or (sweep and sweep["inferred"]):
        lines += [
            "",
            "‡ not all attacked at this epsilon: a row leaves out what the attack broke within it "
            "before; the last attacks, and those that go by scores, what survived them at a larger "
            "one.",
        ]
    if sweep:
        lines += [
            "",
            f"Sweep: {sweep['inferred']} survivals of an example at an epsilon are inferred from a "
            f"larger one; {sweep['checked']} others were attacked after all, and "
            f"{sweep['differed']} of them broke.",
        ]
    return lines


def _notes(defense: dict[str, Any]) -> list[str]:
    notes = [
        f"- {escape(item['attack'])} @ {escape(item['epsilon'])} failed: {escape(item['reason'])}"
        for item in defense["failed"]
    ]
    notes += [
        f"- {escape(item['attack'])} not run: {escape(item['reason'])}"
        for item in defense["skipped"]
        if item["cause"] != "escalation-budget"
    ]
    flags: dict[tuple[str, str], list[str]] = {}
    for attack, cells in defense["attacks"].items():
        for epsilon, cell in cells.items():
            for flag in cell["flags"]:
                flags.setdefault((attack, flag), []).append(epsilon)
    notes += [
        f"- {escape(attack)} @ {', '.join(map(escape, epsilons))}: {escape(flag)}"
        for (attack, flag), epsilons in sorted(flags.items())
    ]
    return ["", *notes] if notes else []
