"""A forked command is what a new interpreter makes of it."""

from __future__ import annotations

import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.commands import call, interpret, start

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("words", [["list"], ["verify", "nowhere"], ["run", "--no-such-option"]])
def test_it_ends_and_speaks_alike(words: list[str], tmp_path: Path) -> None:
    """Exit code, output and errors, started in the same folder."""
    forked = call(*words, cwd=tmp_path)
    new = interpret([sys.executable, "-m", "bench", *words], cwd=tmp_path)

    assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)
    assert forked.stderr == new.stderr


def test_nothing_of_winnow_is_there_before_it_is_imported(tmp_path: Path) -> None:
    """No registry that knows another folder's plugins, and no word of another command's."""
    code = "import os, sys; print([m for m in sys.modules if m.startswith('bench')], os.getcwd())"
    assert call(code, kind="source", cwd=tmp_path).stdout == f"[] {tmp_path}\n"


def test_how_it_ended_is_told(tmp_path: Path) -> None:
    """An exit code, an error that nobody caught, and a signal."""
    for code, ended in (
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('why')", 1),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
    ):
        assert call(code, kind="source", cwd=tmp_path).returncode == ended, code


def test_one_that_nobody_waited_for_is_not_taken_for_the_next() -> None:
    """Its exit code is no process: `kill 0` would end the tests."""
    left = start("import time; time.sleep(600)", kind="source")
    again = start("import os; print(os.getpid())", kind="source")

    assert again.pid not in {0, left.pid}
    assert again.wait().stdout == f"{again.pid}\n"
    ended = start("raise SystemExit(0)", kind="source")
    while ended.is_alive():
        time.sleep(0.01)
    assert call("print(1)", kind="source").stdout == "1\n"
