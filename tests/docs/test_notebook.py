"""The notebook runs, cell after cell, and what is stored in it is what running it shows."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import pytest

import bench
from tests.commands import ROOT

if TYPE_CHECKING:
    from pathlib import Path

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"
#: Bytes that its outputs may come to: it is read in a browser, and kept in git.
LARGEST = 100_000


def code_of(path: Path) -> list[dict[str, Any]]:
    """The cells of code of a notebook."""
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """Do what a cell says; the value of its last line, where that is one and ends in no `;`."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    value = eval(compile(ast.Expression(last.value), "<cell>", "eval"), names)
    return None if source.rstrip().endswith(";") else value


def kinds(value: Any) -> set[str]:
    """What a notebook shows of a value."""
    methods = {"_repr_html_": "text/html", "_repr_png_": "image/png"}
    return {kind for method, kind in methods.items() if getattr(value, method, lambda: None)()}


@pytest.mark.whole
def test_every_cell_runs_and_shows_what_is_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, in one space of names; the same kinds of output, and figures that follow."""
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "show", lambda: None)
    names: dict[str, Any] = {}
    for cell in code_of(NOTEBOOK):
        value = run_cell("".join(cell["source"]), names)
        stored = {kind for output in cell["outputs"] for kind in output.get("data", {})}
        if value is not None:
            assert kinds(value) <= stored
            assert "text/plain" in stored
    result = names["result"]
    assert isinstance(result, bench.Result)
    broken = result.outcomes.query("epsilon == '0.1'").groupby("index")["broken"].any()
    assert result.worst_case == pytest.approx(1 - broken.mean())
    assert bool(names["wrong"].all())
    pyplot.close("all")


def test_the_notebook_is_small_and_was_run_without_an_error() -> None:
    """Every shown cell has its output, and none is of the machine that it was run on."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    cells = code_of(NOTEBOOK)
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert all(output["output_type"] in ("execute_result", "display_data") for output in outputs)
    assert sum("image/png" in output["data"] for output in outputs) == 2
    assert any("worst case" in "".join(output["data"].get("text/html", "")) for output in outputs)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not any(place in text for place in ("/tmp/", "/home/", "/root/", "/work/"))
