"""A defense as Markdown: its matrix, and what a reader has to know beside it."""

from __future__ import annotations

import html
from typing import Any

from bench.errors import printable
from bench.record.summary import examinations

Summary = dict[str, Any]
#: Marks a figure in which some outcomes follow from another epsilon.
INFERRED = " ‡"


def escape(text: object) -> str:
    """Text that cannot break out of a table cell or become markup."""
    flat = " ".join(html.escape(printable(str(text)), quote=False).split())
    for character in "\\|`*_[]~":
        flat = flat.replace(character, "\\" + character)
    return flat


def table(header: list[str], rows: list[list[str]], *, text: frozenset[str] = frozenset()) -> str:
    """A Markdown table of escaped cells; the columns named in `text` align left, others right."""
    ruler = [":--" if name in text else "--:" for name in header]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ruler, *rows])


def percent(fraction: float | None) -> str:
    """A fraction as a percentage with one decimal; a dash for nothing."""
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """A difference of fractions in percentage points, with its sign."""
    return f"{100 * difference:+.1f}"


def interval(entry: dict[str, Any]) -> str:
    """A robust accuracy with its 95 % interval: `43.0 (33.7–52.8)`.

    Of a randomised defense it is the mean fraction of right draws, with the majority beside it.
    """
    if entry["robust_accuracy"] is None:
        return "–"
    low, high = percent(entry["low"]), percent(entry["high"])
    most = entry.get("majority_accuracy")
    beside = "" if most is None else f", right in most draws {percent(most)}"
    return f"{percent(entry['robust_accuracy'])} ({low}–{high}{beside})"


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
        f"({_found_planted(defense)}lowest row: {escape(strongest(defense, headline))}"
        + (f"; of what was left, broken by {escape(beyond)}" if beyond else "")
        + ").",
        "",
        *_rulings(summary, defense),
        render_matrix(summary, name),
        "",
        "Rows are each attack's own robust accuracy in percent over all "
        f"{summary['n']} examples; the worst case is the per-example AND over all of them.",
    ]
    if not all(entry["complete"] for entry in defense["worst_case"].values()):
        lines += ["", "† some cells did not finish: the worst case may be lower."]
    lines += (
        _published(defense)
        + _power(defense)
        + _sweep(defense)
        + _notes(defense)
        + _examination(summary, defense)
    )
    return "\n".join(lines)


def _found_planted(defense: dict[str, Any]) -> str:
    """The power of all attacks together, for the sentence about the worst case."""
    power = defense.get("power")
    if not power:
        return ""
    return f"its attacks find {power['together']} of {power['planted']} planted; "


def _power(defense: dict[str, Any]) -> list[str]:
    """A sentence on how many planted examples each attack found, the most first."""
    power = defense.get("power")
    if not power:
        return []
    found = sorted(power["found"].items(), key=lambda item: (-item[1], item[0]))
    listed = ", ".join(f"{escape(attack)} {count}" for attack, count in found)
    return [
        "",
        f"Power at ε = {escape(power['epsilon'])}, how many of {power['planted']} adversarial "
        f"examples planted in this model are found: {listed}; together {power['together']}. "
        "It corrects no figure.",
    ]


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


def _rulings(summary: Summary, defense: dict[str, Any]) -> list[str]:
    """The verdict on the headline's figure, and those that others have of their own."""
    headline = summary["headline"]
    found = examinations(summary, defense)
    level = defense["worst_case"][headline].get("verdict")
    lines = []
    if headline not in found and level:
        lines += [f"**Verdict: {escape(level)}.** No evidence was gathered on these outcomes.", ""]
    for epsilon, examination in found.items():
        place = _elsewhere(summary, epsilon)
        ruling = examination["verdict"]
        reasons = " ".join(escape(reason) for reason in ruling["reasons"])
        lines += [f"**Verdict{place}: {escape(ruling['level'])}.** {reasons}".rstrip(), ""]
    return lines


def _elsewhere(summary: Summary, epsilon: str) -> str:
    """Where something is, unless it is at the headline epsilon."""
    return "" if epsilon == summary["headline"] else f" at ε = {escape(epsilon)}"


def _evidence(epsilon: str, evidence: list[dict[str, Any]]) -> list[str]:
    """How many tests passed at an epsilon, and which failed."""
    counts = {
        status: sum(item["status"] == status for item in evidence)
        for status in ("pass", "fail", "not run")
    }
    lines = [
        "",
        f"Evidence at ε = {escape(epsilon)}: {counts['pass']} tests passed, "
        f"{counts['fail']} failed, {counts['not run']} not run.",
    ]
    failed = [
        f"- {escape(item['id'])} ({item['kind']}): {escape(item['sentence'])}"
        for item in evidence
        if item["status"] == "fail"
    ]
    return [*lines, *(["", *failed] if failed else [])]


def _examination(summary: Summary, defense: dict[str, Any]) -> list[str]:
    """What the evidence says, what escalation did, and how the twin fares."""
    found = examinations(summary, defense)
    lines = [line for at, part in found.items() for line in _evidence(at, part.get("evidence", []))]
    if not found:
        return []
    lowered = [
        f"{escape(attack)} broke {cells[epsilon]['broken']} more at ε = {escape(epsilon)}"
        for attack, cells in defense["attacks"].items()
        for epsilon in cells
        if cells[epsilon]["escalated"] and cells[epsilon]["status"] == "ok"
    ]
    if lowered:
        lines += ["", f"Escalation: {'; '.join(lowered)}."]
    beyond = [
        escape(attack) + _elsewhere(summary, epsilon)
        for attack, cells in defense["attacks"].items()
        for epsilon, cell in cells.items()
        if cell["cause"] == "escalation-budget"
    ]
    if beyond:
        lines += [
            "",
            f"Left out by --escalation-budget {summary['budget']}: {', '.join(beyond)}.",
        ]
    for epsilon, part in found.items():
        place = _elsewhere(summary, epsilon)
        comparison = part.get("comparison")
        sentence = comparison["sentence"] if comparison else "there is no twin to compare with"
        lines += ["", f"Credit{place}: {escape(sentence)}"]
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
