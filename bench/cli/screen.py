"""Markdown on a terminal: its tables fit the width, whatever it is."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.cells import cell_len
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from bench.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

#: To this a column of text may be folded; one of numbers is never cut.
_NARROWEST = 20
#: Columns between two cells.
_BETWEEN = 2


@dataclass(frozen=True)
class _Column:
    """One column of a table."""

    header: str
    cells: tuple[str, ...]
    is_text: bool

    @property
    def least(self) -> int:
        """The width that it has to have."""
        words = max(map(cell_len, self.header.split()), default=0)
        whole = max(map(cell_len, (_plain(cell) for cell in self.cells)), default=0)
        return max(words, min(whole, _NARROWEST) if self.is_text else whole)

    @property
    def whole(self) -> int:
        """The width in which nothing is folded."""
        return max(map(cell_len, (_plain(cell) for cell in (self.header, *self.cells))))

    def shortened(self) -> _Column:
        """The same with large numbers as `2.4M`, and without `ε =` where it is in every header."""
        if self.is_text:
            return self
        header = self.header.removeprefix("ε = ")
        return _Column(header, tuple(map(_shortened, self.cells)), is_text=False)


def show_markdown(text: str, console: Console) -> None:
    """Print Markdown as laid out by rich, but for tables, which are made to fit."""
    for block in _blocks(text):
        table = block.startswith("|")
        for part in fitted(_columns(block), console.width) if table else [Markdown(block)]:
            console.print(part)
            console.print()


def fitted(columns: Sequence[_Column], width: int) -> Iterator[Table]:
    """A table in as many parts as the width asks for, each with the column that names its rows.

    Long names are folded; where that is not enough numbers are shortened, and then columns go
    below the others.
    """
    if _needs(columns) > width:
        columns = [column.shortened() for column in columns]
    names = next((i for i, column in enumerate(columns) if column.is_text), 0)
    part = list(columns[: names + 1])
    for column in columns[names + 1 :]:
        if _needs([*part, column]) > width and len(part) > 1:
            yield _table(part, width)
            part = [columns[names]]
        part.append(column)
    yield _table(part, width)


def _needs(columns: Sequence[_Column]) -> int:
    return sum(column.least + _BETWEEN for column in columns)


def _table(columns: Sequence[_Column], width: int) -> Table:
    """One part; what is left of the width goes to headers first, then to names."""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    spare = max(0, width - _needs(columns))
    widths = [column.least for column in columns]
    for place in sorted(range(len(columns)), key=lambda place: columns[place].is_text):
        more = min(spare, max(0, columns[place].whole - widths[place]))
        widths[place] += more
        spare -= more
    for column, wide in zip(columns, widths, strict=True):
        justify: Literal["left", "right"] = "left" if column.is_text else "right"
        made.add_column(Text(_plain(column.header)), justify=justify, overflow="fold", width=wide)
    for row in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*(Text(_plain(cell), style=_style(cell)) for cell in row))
    return made


def _blocks(text: str) -> list[str]:
    """What blank lines part, without what steers a terminal."""
    clean = printable(text).strip("\n")
    return [block for block in re.split(r"\n\s*\n", clean) if block.strip()]


def _columns(block: str) -> list[_Column]:
    """The columns of a Markdown table."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in block.splitlines()
    ]
    header, ruler, *body = rows
    return [
        _Column(name, tuple(cells), is_text=not rule.endswith(":"))
        for name, rule, *cells in zip(header, ruler, *body, strict=True)
    ]


def _plain(cell: str) -> str:
    """What a cell says, without the marks of Markdown."""
    bare = re.sub(r"(?<!\\)\*", "", cell)
    return html.unescape(re.sub(r"\\(.)", r"\1", bare))


def _style(cell: str) -> str:
    return "bold" if cell.startswith("**") else "italic" if cell.startswith("*") else ""


def _shortened(cell: str) -> str:
    """`2,420,494` as `2.4M`; anything else as it is."""
    if not re.fullmatch(r"\d{1,3}(,\d{3})+", cell):
        return cell
    value = float(cell.replace(",", ""))
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:.3g}{letter}" if value < 1000 * unit else f"{value:.0f}"
    return cell
