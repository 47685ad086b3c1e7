"""Where figures go, and that the same numbers give the same bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.errors import UsageError
from bench.figures.canvas import Destination, canvas, literal, to_bytes, to_csv
from tests.figures.models import footer


class Numbers:
    """Two points."""

    caption = "two points, one of them 1 % off"

    def columns(self) -> dict[str, list[Any]]:
        """One of them has no value."""
        return {"x": [0.1, 1 / 3], "y": [None, 2]}


def draw() -> Any:
    """A line, clipped to its axes: what gets an identifier in an SVG."""
    figure = canvas(4, 3, Numbers.caption)
    figure.subplots().plot([0, 1], [0, 1])
    return figure


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("a/plot", ["plot.png", "plot.svg", "plot.csv"]),
        ("a/kwta-0.1", ["kwta-0.1.png", "kwta-0.1.svg", "kwta-0.1.csv"]),
        ("a/plot.png", ["plot.png", "plot.csv"]),
        ("a/plot.svg", ["plot.svg", "plot.csv"]),
    ],
)
def test_an_ending_chooses_one_picture(tmp_path: Path, out: str, names: list[str]) -> None:
    """Without one there are both; the table is always there."""
    written = Destination.of(tmp_path / out).write(draw(), Numbers())

    assert written == [tmp_path / "a" / name for name in names]
    assert {path.name for path in (tmp_path / "a").iterdir()} == set(names)


@pytest.mark.parametrize("out", ["plot.pdf", "."])
def test_another_ending_is_refused(out: str) -> None:
    """Rather than written as `plot.pdf.png`."""
    with pytest.raises(UsageError, match=re.escape(f"written as .png and .svg (got '{out}')")):
        Destination.of(Path(out))


def test_pictures_are_what_their_endings_say(tmp_path: Path) -> None:
    """PNG by its magic number, SVG by its root; both carry the caption."""
    png, svg, table = Destination.of(tmp_path / "plot").write(draw(), Numbers())

    assert png.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(png) as image:
        assert image.info["Description"] == Numbers.caption
    assert "<svg " in svg.read_text()
    assert Numbers.caption in svg.read_text()
    assert table.read_text() == "x,y\n0.1,\n0.3333333333333333,2\n"


def test_drawn_twice_the_bytes_are_the_same(tmp_path: Path) -> None:
    """No date and no random identifier."""
    first = Destination.of(tmp_path / "first").write(draw(), Numbers())
    second = Destination.of(tmp_path / "second").write(draw(), Numbers())

    assert [a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True)] == [
        True
    ] * 3


def test_the_caption_stands_below() -> None:
    """In full, whatever its length, and a dollar sign is no formula."""
    text = "of $a$ and $b, " * 20

    assert footer(canvas(4, 3, text)) == text.strip()


def test_numbers_are_written_in_full() -> None:
    """Read back, they are the same."""
    text = to_csv({"value": [0.1 + 0.2, 1e-300]})

    assert [float(line) for line in text.splitlines()[1:]] == [0.1 + 0.2, 1e-300]


@pytest.mark.parametrize("name", [r"$\frac$", "a$b$c^", "100 $", r"\$x_1\$", "_own", "kwta[k=3]"])
def test_a_name_is_shown_as_it_is(name: str) -> None:
    """As where matplotlib is told to read no formula in it, pixel by pixel; nothing is left out."""

    def titled(text: str, **how: Any) -> bytes:
        figure = canvas(4, 3, "")
        figure.subplots().set_title(text, loc="left", x=0.1, **how)
        return to_bytes(figure, "", ".png")

    assert titled(literal(name)) == titled(" " * name.startswith("_") + name, parse_math=False)
    figure = canvas(4, 3, "")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label=literal(name))
    assert len(axes.legend().get_texts()) == 1
