"""Time to start and memory, of a command with every process that it starts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.scripts import FOLDER, printed

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


@pytest.mark.whole
def test_startup(
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line per command, in the units of both libraries, whose imports are left out here."""
    footprint = script("footprint")
    for peer in (footprint.TORCH, footprint.FOOLBOX):
        monkeypatch.setitem(footprint.PEERS, peer, ("-c", "pass"))
    footprint.startup(1)

    lines, below = printed(capsys)
    by_command = {line["command"].strip("`"): line for line in lines}
    assert by_command.keys() == footprint.OWN.keys() | footprint.PEERS.keys()
    assert by_command[footprint.TORCH]["of import torch"] == "1.00"
    assert by_command[footprint.FOOLBOX]["of import foolbox"] == "1.00"
    assert below.count("`import torch`") == len(footprint.OWN)


def test_a_command_that_fails_has_no_time(script: Callable[[str], ModuleType]) -> None:
    """Its quick end would look like speed."""
    footprint = script("footprint")

    with pytest.raises(footprint.subprocess.CalledProcessError):
        footprint.start(["-c", "raise SystemExit(3)"])


def test_memory(
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Growth is per example beyond the fewest, and the libraries alone stand in the first line."""
    footprint = script("footprint")
    peaks = {0: 500_000_000, 50: 600_000_000, 250: 660_000_000}
    monkeypatch.setattr(footprint, "peak", lambda n, attacks, seed: peaks[n])
    footprint.memory([50, 250], "pgd", 0)

    lines, below = printed(capsys)
    assert [line["examples"] for line in lines] == ["none", "50", "250"]
    assert [line["growth per example (kB)"] for line in lines] == ["–", "–", "300.0"]
    assert [line["of the fewest examples"] for line in lines] == ["–", "1.000", "1.100"]
    assert "A run of n = 250 loses: 1.10 times the memory of one of n = 50." in below


@pytest.mark.whole
def test_the_peak_is_that_of_the_child(script: Callable[[str], ModuleType]) -> None:
    """A child that imports torch and runs an attack is measured, whatever this process holds."""
    size = script("footprint").peak(2, "fgsm", 0)

    assert 100e6 < size < 5e9


def test_memory_once_taken_is_seen(script: Callable[[str], ModuleType]) -> None:
    """The peak rises by what is written to, and stays when it is given back."""
    footprint = script("footprint")
    before = footprint.own_peak()
    taken = bytearray(b"x") * (before + 50_000_000)
    held = len(taken)
    del taken

    assert footprint.own_peak() >= held


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands orphans over")
def test_what_a_command_leaves_running_is_counted_as_its_own(
    script: Callable[[str], ModuleType],
) -> None:
    """An orphan's processor time is awaited; its peak, and what was held together, are seen."""
    orphan = (
        "import time; held = bytearray(b'x') * 90_000_000; end = time.process_time() + 0.6\n"
        "while time.process_time() < end: pass"
    )
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {orphan!r}])"
    command = [sys.executable, "-c", f"{parent}; print('said'); sys.exit(3)"]

    found, printed = script("accounting").account(command, FOLDER)

    assert (printed, found.status) == ("said", 3)
    assert 0.6 <= found.processor < 5
    assert 90e6 < found.largest < 300e6
    assert 80e6 < found.together < 300e6
