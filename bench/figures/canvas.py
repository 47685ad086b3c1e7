"""Figures with a caption, as PNG, SVG and CSV: the same numbers give the same bytes."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bench.errors import UsageError
from bench.record.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from matplotlib.figure import Figure

ENDINGS = (".png", ".svg")
#: Told apart by people with colour-blindness too (Okabe and Ito 2008).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_CAPTION_SIZE = 7.0
#: Characters of a caption in an inch of a figure's width.
_CHARACTERS = 18


class Drawn(Protocol):
    """The numbers of a figure."""

    @property
    def caption(self) -> str:
        """What the figure shows, and what made it."""

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Everything that is plotted, by column; None where there is no value."""


@dataclass(frozen=True)
class Place:
    """Where a figure goes."""

    pictures: tuple[Path, ...]
    """Each ends in one of `ENDINGS`."""
    table: Path
    """The numbers, as CSV."""

    @classmethod
    def of(cls, out: Path) -> Place:
        """A path ending in .png or .svg is that picture; without an ending it becomes both.

        Raises:
            UsageError: another ending, or no file's name.
        """
        if out.suffix in ENDINGS:
            return cls((out,), out.with_suffix(".csv"))
        if not out.name or re.fullmatch(r"\.[A-Za-z]+", out.suffix):
            raise UsageError(
                f"figures are written as .png and .svg (got {str(out)!r}); "
                "name one of them, or leave the ending out for both"
            )
        pictures = tuple(out.with_name(out.name + ending) for ending in ENDINGS)
        return cls(pictures, out.with_name(f"{out.name}.csv"))

    def write(self, figure: Figure, drawn: Drawn) -> list[Path]:
        """Write the pictures and the table; give their paths.

        Raises:
            StoreError: the place cannot be written.
        """
        for path in self.pictures:
            write_bytes(path, to_bytes(figure, drawn.caption, path.suffix))
        write_bytes(self.table, to_csv(drawn.columns()).encode())
        return [*self.pictures, self.table]


def to_bytes(figure: Figure, caption: str, ending: str) -> bytes:
    """A picture, with its caption among the file's metadata as well.

    Args:
        figure: what to draw.
        caption: one paragraph.
        ending: one of `ENDINGS`.
    """
    import matplotlib

    # Without the salt and the date, an SVG drawn twice would be two different files.
    undated = {"Date": None} if ending == ".svg" else {}
    picture = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "winnow"}):
        figure.savefig(
            picture, format=ending[1:], dpi=150, metadata={"Description": caption, **undated}
        )
    return picture.getvalue()


def to_csv(columns: Mapping[str, Sequence[Any]]) -> str:
    """A header and a line for each row; numbers in full, what is missing empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow("" if value is None else value for value in row)
    return text.getvalue()


def canvas(width: float, height: float, caption: str) -> Figure:
    """An empty figure, its size in inches, with the caption below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(
        textwrap.fill(caption, int(width * _CHARACTERS)),
        x=0.01, ha="left", fontsize=_CAPTION_SIZE, color="0.3", parse_math=False,
    )  # fmt: skip
    return figure


def colour(index: int) -> str:
    """The colour of the so-manieth line."""
    return COLOURS[index % len(COLOURS)]
