"""What a name can do to a file or a terminal that shows it: nothing."""

from __future__ import annotations

import csv
import io
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from bench.cli import options
from bench.cli.progress import TrainingProgress
from bench.errors import UsageError, printable
from bench.figures.canvas import to_csv
from bench.registry.grammar import Written
from bench.report.cells import cell
from bench.report.writing import escape, table
from bench.run.progress import RunProgress
from bench.train import Progress

#: Names that are formulas, markup, table, HTML, or orders to a terminal.
HOSTILE = [
    "=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", '=cmd|"/c calc"!A1', "a|b", "`code`",
    "<script>", "[/red]", "[bold]x", "[link](x)", "![i](x)", "*a*", "_a_", "~~a~~", "a\nb",
    "a\r\nb", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\x07", "\x08\x08",
    "a\u202eb", "\ud800",
    "\\", "&amp;", "# a", "- a",
]  # fmt: skip


@pytest.mark.parametrize("text", ["=1+1", "+1", "-a", "@x", "\t=1", "\r=1", "=", "-", "-1+1", "+"])
def test_what_would_be_a_formula_gets_an_apostrophe(text: str) -> None:
    """Whatever program opens it shows the text."""
    shown = cell(text)
    if text != "+1":  # a number
        assert shown == "'" + printable(text)


@pytest.mark.parametrize(
    "value", [-1.5, 3, None, True, "-1.5", "+3", "-1e-3", "8/255", "a=b", "", "1-2"]
)
def test_numbers_and_plain_text_stay_as_they_are(value: Any) -> None:
    """Numbers, as numbers or as text, are none of these."""
    assert cell(value) == value
    assert type(cell(value)) is type(value)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_cell_of_text_in_a_csv(name: str) -> None:
    """Read again it is the name, no formula, in the header as well."""
    frame = pd.DataFrame({"defense": [name], "norm": [-0.5]}, dtype=object).map(cell)
    for text in (frame.to_csv(index=False), to_csv({name: [name, None], "x": [-0.5, 1]})):
        text.encode()
        for row in csv.reader(io.StringIO(text)):
            assert len(row) == 2
            assert not row[0].startswith(("=", "@", "\t", "\r"))
    assert float(frame["norm"][0]) == -0.5


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_cell_of_a_markdown_table(name: str) -> None:
    """One line, as many bars as columns, nothing that is HTML or steers a terminal."""
    text = table(["a", "b"], [[escape(name), "1"]], text=frozenset({"a"}))
    row = text.splitlines()[2:]
    assert len(row) == 1
    assert row[0].replace("\\|", "").count("|") == 3
    assert "<" not in row[0]
    assert printable(row[0]) == row[0]
    row[0].encode()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("terminal", [False, True])
def test_a_hostile_name_survives_progress_and_notes(name: str, terminal: bool) -> None:
    """Shown as it is but for what steers the terminal; brackets are no markup."""
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=200, color_system=None)
    with TrainingProgress(console, name) as progress:
        progress.update(Progress(1, 2, 0.5, 0.5, 1.0))
        progress._last_line = -100.0
        progress.update(Progress(2, 2, 0.5, 0.5, 2.0))
    with RunProgress(console, name) as run:
        run._robust[name] = 0.5
        run._last_line = -100.0
        run._show()
    shown = written.getvalue()
    visible = printable(name).strip().splitlines()
    assert all(part.strip() in shown for part in visible)
    assert "title" not in shown
    assert "\x07" not in shown


def test_answers_and_notes_do_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Printed lines, JSON and errors."""
    options.echo("a\x1b[31mb\x9b")
    options.notes().print("[red]\x1b[2Jc")
    options.print_json({"name": "\x9bd\u202e\x1b"})
    out, err = capsys.readouterr()
    assert out == 'ab\n{\n  "name": "\\u009bd\\u202e\\u001b"\n}\n'
    assert err == "[red]c\n"


@pytest.mark.parametrize("name", ["kwta\0", "\x1b[31m", "a\u202eb", "\ud800", "pgd[steps=\x1b]"])
def test_a_name_with_control_characters_is_none(name: str) -> None:
    """It is refused where names are read, before it gets into files."""
    with pytest.raises(UsageError, match="cannot read the name"):
        Written.parse(name)
