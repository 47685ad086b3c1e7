"""What the examination of a defense found, in sentences: verdict, power, evidence, escalation."""

from __future__ import annotations

from typing import Any

from bench.record.summary import examinations
from bench.report.writing import Summary, escape


def rulings(summary: Summary, defense: dict[str, Any]) -> list[str]:
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


def examined(summary: Summary, defense: dict[str, Any]) -> list[str]:
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


def found_planted(defense: dict[str, Any]) -> str:
    """The power of all attacks together, for the sentence about the worst case."""
    power = defense.get("power")
    if not power:
        return ""
    return f"its attacks find {power['together']} of {power['planted']} planted; "


def power_of(defense: dict[str, Any]) -> list[str]:
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
