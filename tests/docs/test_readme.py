"""From the README alone: a picture of one's own model, its page, a leaderboard with one's defense.

Its blocks are followed in order in one folder. The two opening commands, which install and take
minutes, are `text`; their parts are tested elsewhere.
"""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.commands import ROOT, call
from tests.docs.test_documents import PROGRAM, steps_of
from tests.docs.test_notebook import run_cell

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text(encoding="utf-8")
#: Bytes that it may have.
LARGEST = 8_000


def rows_of(document: str) -> list[str]:
    """The rows of its tables, without heads and rules, escapes and all."""
    return re.findall(r"^\| (?!attack |:--).*\|$", document, flags=re.MULTILINE)


@dataclass
class Followed:
    """What a reader has who did all of it."""

    folder: Path
    names: dict[str, Any] = field(default_factory=dict)
    """Of the notebook."""
    shown: list[Any] = field(default_factory=list)
    """What its cells end with."""
    printed: dict[str, str] = field(default_factory=dict)
    """By command."""


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Followed:
    """Cells in one space of names, as in a notebook; commands in processes of their own."""
    reader = Followed(tmp_path_factory.mktemp("readme"))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(reader.folder)
        for tag, text in steps_of(README):
            if tag == "source":
                reader.shown.append(run_cell(text, reader.names))
                continue
            assert tag == "command"
            words = shlex.split(text, comments=True)[len(PROGRAM) :]
            done = call(*words, cwd=reader.folder, env=environment)
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            reader.printed[" ".join(words)] = done.stdout
    return reader


@pytest.mark.whole
def test_ten_lines_evaluate_a_model_of_cifars_shape_and_draw_it(followed: Followed) -> None:
    """The last line is a picture, whose end is the worst case at the last epsilon."""
    from matplotlib.axes import Axes

    (cell,) = (text for tag, text in steps_of(README) if tag == "source")
    assert sum(bool(line) for line in cell.splitlines()) <= 10
    assert followed.names["images"].shape[1:] == (3, 32, 32)
    (picture,) = followed.shown
    assert isinstance(picture, Axes)
    drawn = np.asarray(picture.lines[0].get_ydata())
    assert drawn[-1] == pytest.approx(followed.names["result"].worst_case)
    assert "worst case" in followed.names["result"]._repr_html_()


@pytest.mark.whole
def test_its_page_is_one_file_with_the_figure(followed: Followed) -> None:
    """What `report --html latest` says that it wrote, of the run that the cell stored."""
    result = followed.names["result"]
    (path,) = followed.printed["report --html latest"].split()
    page = (followed.folder / path).read_text(encoding="utf-8")
    assert (followed.folder / path).stem == result.folder.name
    assert f"{100 * result.worst_case:.1f} %" in page
    assert "data:image/png;base64," in page


@pytest.mark.whole
def test_a_leaderboard_ranks_the_new_defense(followed: Followed) -> None:
    """Beside the model, each with the figure of its run."""
    (path,) = followed.printed["report"].split()
    board = (followed.folder / path).read_text(encoding="utf-8")
    ranked = {
        cells[1].strip(): cells[4]
        for line in board.splitlines()
        if re.match(r"\| \d+ \|", line) and (cells := line.strip("|").split("|"))
    }
    assert {"model", "my-defense"} <= ranked.keys()
    (run,) = (text for words, text in followed.printed.items() if words.startswith("run "))
    found = re.search(r"^my-defense: worst case ([\d.]+ \([\d.]+–[\d.]+\)) %", run, re.MULTILINE)
    assert found is not None
    assert found[1] in ranked["my-defense"]


def test_it_is_short_and_its_table_is_ten_rows_of_the_whole_one() -> None:
    """Under 8 kB; each row stands in the tutorial that has them all."""
    assert len(README.encode()) < LARGEST
    whole = (ROOT / "docs" / "read-a-verdict.md").read_text(encoding="utf-8")
    assert len(rows_of(README)) == 10
    assert set(rows_of(README)) <= set(rows_of(whole))
    assert f"from {len([row for row in rows_of(whole) if row.count('|') == 7])}\n" in README


def test_its_links_go_to_files_that_are_there() -> None:
    """The site's are checked where it is built."""
    links = re.findall(r"\]\((?![a-z]+:)([^)#]+)", README)
    assert len(links) > 20
    assert [link for link in links if not (ROOT / link).exists()] == []
