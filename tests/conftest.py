"""What tests of several packages share, and in which order and how long they run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from bench.trust import asked

if TYPE_CHECKING:
    from pathlib import Path

# Figures of tests are a CPU's: a machine's GPUs are seen by those alone that ask for them.
os.environ.setdefault("WINNOW_TEST_GPUS", os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
os.environ["CUDA_VISIBLE_DEVICES"] = ""

#: Seconds on a quiet machine from which on a test is marked `whole`. Nothing fails by its time.
LONG = 10


@pytest.fixture
def gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The examination measures gradients and nothing else: enough for a sweep, and quick."""
    monkeypatch.setattr(
        "bench.run.inquiry.requests",
        lambda case, menu: [asked("probe-gradients", case.headline.text)],
    )


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder of this session's, the same one in all its processes."""
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with long tests come first, so that no process ends with one while others wait."""
    long = {item.path for item in items if item.get_closest_marker("whole")}
    items.sort(key=lambda item: item.path not in long)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that are long and not marked so: `-m "not whole"` is to be quick."""
    reports = [r for r in terminalreporter.getreports("passed") if "whole" not in r.keywords]
    for report in sorted(reports, key=lambda report: -report.duration):
        if report.duration > LONG:
            terminalreporter.write_line(
                f"not marked whole: {report.nodeid} took {report.duration:.0f} s"
            )
