"""How a run is shown: what has to fit a terminal fits it, and a notebook has a live cell."""

from __future__ import annotations

import io
import re
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import bench
from bench.api import Cost
from bench.run.progress import QUIET_INTERVAL, RunProgress, duration
from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = "a-defense-with-a-very-long-name[gamma=0.123456789,network=wideresnet-22-10]" * 3


def drawn(console: Console, progress: RunProgress) -> list[str]:
    """The lines of the live display as it stands."""
    with console.capture() as caught:
        console.print(progress._progress.get_renderable())
    return re.sub("\x1b\\[[0-9;?]*[a-zA-Z]", "", caught.get()).splitlines()


def shown(width: int, done: float = 1.0) -> list[str]:
    """A run of many cells, the last attack of a long name leading; done of 100."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width)
    progress = RunProgress(console, "0.031372549", ticking=False)
    progress._open = dict.fromkeys(map(str, range(12345)), 1)
    progress._cells_done, progress._planned, progress._done = 12000, 100.0, done
    progress._started -= 3600.0
    progress._robust = {LONG: 0.25}
    progress._broke[LONG].update({"pgd": 12, LONG: 30})
    progress._show()
    return drawn(console, progress)


def test_bar_count_and_time_left_fit_eighty_columns() -> None:
    """However long the names are: they stand in a line of their own, which gives way."""
    first, second = shown(80)
    assert all(cell_len(line) <= 80 for line in (first, second))
    assert "12000/12345 cells" in first
    assert re.search(r"ETA \d+:\d\d:\d\d", first)
    assert "━" in first or "-" in first
    assert " 1%" in first


def test_no_time_left_is_told_from_the_start_alone() -> None:
    """Of the first few passes nearly all is loading: it would be days."""
    assert "ETA –" in shown(80, done=0.9)[0]


def test_the_time_left_counts_the_phases_to_come_and_says_that_more_may() -> None:
    """A quarter of all that is planned took an hour, whichever phase it is in."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    for examined, said in ((False, "ETA 3:00:0"), (True, "ETA ≥ 3:00:0")):
        progress = RunProgress(console, examined=examined, ticking=False)
        progress.begin([], Cost(60, 70))
        assert progress._planned == 0
        progress._planned, progress._done = 100.0, 75.0
        progress._started -= 3600.0
        progress._show()
        assert said in drawn(console, progress)[0]


def test_a_second_line_says_what_is_left_and_which_attack_leads() -> None:
    """By what each broke by itself."""
    _, second = shown(2000)
    assert f"{LONG} 25 % robust so far, {LONG} leads (broke 30)" in second


def test_a_log_gets_a_line_now_and_then() -> None:
    """Where no terminal is, as soon as there is something to say after an interval."""
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    progress = RunProgress(console, ticking=False)
    lines = []
    for waited in (0, QUIET_INTERVAL, 0):
        progress._last_line -= waited
        progress.busy([])
        assert isinstance(console.file, io.StringIO)
        lines.append(console.file.getvalue())
    assert lines == ["", "0/0 cells, ETA –: starting\n", lines[1]]


def watched(monkeypatch: pytest.MonkeyPatch, **kind: Any) -> tuple[bench.Result, str]:
    """A run on a screen of some kind, and what was written there."""
    file = io.StringIO()
    make: Callable[..., Console] = Console
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: make(file=file, width=80, color_system=None, **kind)
    )
    examples = linear_examples(8)
    result = bench.evaluate(
        Sum(), examples.inputs, examples.labels, epsilons=0.03, attacks="fgsm", examine=False
    )
    return result, file.getvalue()


def test_a_program_in_a_terminal_sees_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """With cells done, and the attack that leads."""
    result, said = watched(monkeypatch, force_terminal=True)
    assert "/2 cells" in said
    broke = int(result.outcomes["broken"].sum())
    assert f"fgsm leads (broke {broke})" in " ".join(said.split())


def test_a_program_without_a_terminal_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log is not filled with what nobody asked for."""
    _, said = watched(monkeypatch, force_terminal=False)
    assert said == ""


def test_a_notebook_has_a_live_cell_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """One cell, updated with a bar, escaped, and empty when the run is over."""
    texts: list[str] = []

    class Handle:
        def update(self, text: str) -> None:
            texts.append(text)

    def display(text: str, *, display_id: bool) -> Handle:
        assert display_id
        texts.append(text)
        return Handle()

    module = types.ModuleType("IPython.display")
    vars(module).update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    monkeypatch.setattr("bench.run.progress.CELL_INTERVAL", 0.0)
    _, said = watched(monkeypatch, force_jupyter=True)
    assert said == ""
    assert texts[0] == texts[-1] == ""
    assert any("<progress value=" in text and "2/2 cells" in text for text in texts)
    assert all("× fgsm" not in text or "model × fgsm" in text for text in texts)


@pytest.mark.parametrize(("seconds", "written"), [(5, "0:05"), (65, "1:05"), (7265, "2:01:05")])
def test_times_have_hours_where_there_are_some(seconds: float, written: str) -> None:
    """Nobody reads 121:05."""
    assert duration(seconds) == written
