"""What all reports write with: escaped text, tables, and figures as people read them."""

from __future__ import annotations

import html
from typing import Any

from bench.errors import printable

Summary = dict[str, Any]


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
