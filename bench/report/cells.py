"""Cells of CSV files, as programs of tables read them."""

from __future__ import annotations

from typing import Any

from bench.errors import printable

#: What makes a cell a formula where it comes first.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> Any:
    """A value as a cell that no program takes for a formula: those get an apostrophe in front.

    Numbers stay what they are, as numbers and as text.
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if value.startswith(FORMULA) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
