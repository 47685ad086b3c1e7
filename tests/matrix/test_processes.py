"""Processes for guests start from a server that has imported what they need."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from bench.matrix import processes
from bench.matrix.processes import COPY, GuestProcess

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = """
import sys

from bench.matrix.processes import SERVER, GuestProcess, begin_server


def tell(connection):
    connection.send("torch" in sys.modules)


if __name__ == "__main__":
    begin_server()
    begin_server()
    guest = GuestProcess(SERVER, tell)
    print(guest.connection.recv(), "torch" in sys.modules)
    guest.end()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the server imports on Linux alone")
def test_guests_find_imported_what_they_need(tmp_path: Path) -> None:
    """As they start, with nothing of it in the process that starts them.

    What cannot be imported hinders nobody, and a module of the working folder, where the script
    would not find it, is not taken for a library.
    """
    script, folder = tmp_path / "script.py", tmp_path / "elsewhere"
    script.write_text(SCRIPT)
    (tmp_path / "foolbox.py").write_text("raise RuntimeError('broken')\n")
    folder.mkdir()
    (folder / "torch.py").write_text("print('executed')\n")

    done = subprocess.run(
        [sys.executable, script], cwd=folder, capture_output=True, text=True, check=True
    )

    assert (done.stdout.split(), done.stderr) == (["True", "False"], "")


@pytest.mark.skipif(COPY != "fork", reason="another process has another standard error")
def test_a_guest_whose_folder_is_gone_ends_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on Ctrl-C, where its parent removes the folder while it starts."""
    guest = GuestProcess(COPY, print, output=tmp_path / "gone" / "output")
    guest.process.join()
    guest.end()

    assert guest.process.exitcode == 1
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("quota", "expected"),
    [(None, 6), ("max 100000", 6), ("200000 100000", 2), ("150000 100000", 2), ("5000 100000", 1)],
)
def test_cores_are_those_that_a_container_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, expected: int
) -> None:
    """A part of one is one; where nothing says so they are all, on systems without affinity too."""
    if quota is not None:
        (tmp_path / "cpu.max").write_text(f"{quota}\n")
    monkeypatch.setattr(processes, "CONTAINER", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert processes.cores() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert processes.cores() == expected
