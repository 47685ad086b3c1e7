"""Processes for guests start from a server that has imported what they need."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

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
