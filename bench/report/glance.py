"""A result at a glance: one line, and a small card of HTML for a notebook's cell."""

from __future__ import annotations

import html
from typing import Any

from bench.errors import printable
from bench.report.markdown import beyond_rows, strongest
from bench.report.writing import Summary, interval, percent

#: Colours that are told apart in a light and a dark page, of words that stand beside them.
_COLOURS = {
    "credible": "#2a7f3f",
    "broken": "#b3261e",
    "unreliable": "#b3261e",
    "suspect": "#a15c00",
}
#: Rows of a card: the attacks that broke most.
ROWS = 8


def in_a_line(summary: Summary, name: str) -> str:
    """`kwta: worst case 19.0 (12.5–27.8) % at ε = 0.1, unreliable, n = 100`."""
    worst, headline = _worst(summary, name), summary["headline"]
    figure = f"{interval(worst)} %" if worst["robust_accuracy"] is not None else "no figure"
    missing = "" if worst["complete"] else ", incomplete"
    level = worst.get("verdict") or "not examined"
    said = f"{name}: worst case {figure} at ε = {headline}, {level}{missing}, n = {summary['n']}"
    return " ".join(printable(said).split())


def closing(summary: Summary, name: str) -> str:
    """What the end of a run says of a defense: the worst case and its verdict, and what set them.

    The second line names the attack that leads, and what no row shows.
    """
    part, headline = summary["defenses"][name], summary["headline"]
    lowest = strongest(part, headline)
    lines = [in_a_line(summary, name)]
    if lowest in part["attacks"]:
        row = percent(part["attacks"][lowest][headline]["robust_accuracy"])
        beyond = beyond_rows(part, headline)
        more = f"; of what was left, broken by {beyond}" if beyond else ""
        said = f"lowest row: {lowest}, {row} %{more}"
        lines.append(f"  {' '.join(printable(said).split())}")
    return "\n".join(lines)


def spent(summary: Summary) -> str:
    """What a run took, of each defense and each control, and together.

    `passes: kwta 2,420,494 (59 s), twin relu 803,114 (17 s); together 3,223,608 (76 s)`.
    """
    every = {**summary["defenses"], **summary.get("controls", {})}
    costs = {
        f"twin {name}" if name not in summary["defenses"] else name: part["cost"]
        for name, part in every.items()
    }
    passes = {name: cost["forwards"] + cost["backwards"] for name, cost in costs.items()}
    each = [f"{name} {passes[name]:,} ({costs[name]['seconds']:,.0f} s)" for name in costs]
    seconds = sum(cost["seconds"] for cost in costs.values())
    total = f"; together {sum(passes.values()):,} ({seconds:,.0f} s)" if len(each) > 1 else ""
    return " ".join(printable(f"passes: {', '.join(each)}{total}").split())


def render_card(summary: Summary, name: str) -> str:
    """Verdict, worst case, power and the strongest attacks' rows; HTML by itself, escaped."""
    part, worst = summary["defenses"][name], _worst(summary, name)
    level = worst.get("verdict") or "not examined"
    reasons = (part.get("verdict") or {}).get("reasons", [])
    power = part.get("power")
    said = [
        f"clean accuracy {percent(part['clean_accuracy'])} %, n = {summary['n']}, "
        f"{summary['norm']} ε = {summary['headline']}",
        *reasons,
    ]
    if not worst["complete"]:
        said.append("Some cells did not finish: the worst case may be lower.")
    if power:
        said.append(
            f"Of {power['planted']} adversarial examples planted in this model its attacks find "
            f"{power['together']}."
        )
    if broke := beyond_rows(part, summary["headline"]):
        said.append(f"What no row shows: of what was left, broken by {broke}.")
    figure = _text(interval(worst))
    return (
        '<div style="border:1px solid #8884;border-radius:6px;padding:0.6em 0.9em;'
        'max-width:46em;font-size:90%">'
        f"<div><b>{_text(name)}</b>: worst case <b>{figure} %</b>, "
        f'<b style="color:{_COLOURS.get(level, "inherit")}">{_text(level)}</b></div>'
        + "".join(f'<div style="opacity:0.85">{_text(line)}</div>' for line in said)
        + _table(summary, part)
        + "</div>"
    )


def _table(summary: Summary, part: dict[str, Any]) -> str:
    """The rows of the attacks that broke most at the headline epsilon, the worst case last."""
    epsilons, headline = summary["epsilons"], summary["headline"]
    rows = {
        attack: {e: cell["robust_accuracy"] for e, cell in cells.items()}
        for attack, cells in part["attacks"].items()
        if cells.get(headline, {}).get("robust_accuracy") is not None
    }
    order = sorted(rows, key=lambda attack: (rows[attack][headline], attack))
    left = len(order) - ROWS
    head = _row("th", f"attack ({left} more broke less)" if left > 0 else "attack", *(
        f"ε = {epsilon}" for epsilon in epsilons))  # fmt: skip
    body = [
        _row("td", attack, *(percent(rows[attack].get(epsilon)) for epsilon in epsilons))
        for attack in reversed(order[:ROWS])
    ]
    worst = part["worst_case"]
    body.append(_row("th", "worst case", *(percent(worst[e]["robust_accuracy"]) for e in epsilons)))
    return (
        '<table style="margin-top:0.5em"><caption style="text-align:left">robust accuracy in '
        f"percent; lowest row: {_text(strongest(part, headline))}</caption>"
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"
    )


def _row(tag: str, first: str, *cells: str) -> str:
    left, right = 'style="text-align:left"', 'style="text-align:right"'
    others = "".join(f"<{tag} {right}>{_text(cell)}</{tag}>" for cell in cells)
    return f"<tr><{tag} {left}>{_text(first)}</{tag}>{others}</tr>"


def _worst(summary: Summary, name: str) -> dict[str, Any]:
    found: dict[str, Any] = summary["defenses"][name]["worst_case"][summary["headline"]]
    return found


def _text(value: object) -> str:
    return html.escape(printable(str(value)))
