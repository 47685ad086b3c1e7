"""Where the benchmarks' scripts are, and how what they print is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

import bench
from bench.run.config import RunConfig
from bench.run.prepare import prepare

if TYPE_CHECKING:
    import pytest

FOLDER = Path(bench.__file__).parent.parent / "benchmarks"
#: Every example of these is broken by a few passes.
WIDE = "0.3"


def printed(capsys: pytest.CaptureFixture[str]) -> tuple[list[dict[str, str]], str]:
    """The lines of the one table that was printed, by column, and what stands below it."""
    lines = capsys.readouterr().out.splitlines()
    table = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    header, ruler, *rows = table
    assert set("".join(ruler)) <= set(":- |")
    assert {len(row) for row in rows} == {len(header)}
    return [dict(zip(header, row, strict=True)) for row in rows], "\n".join(lines[len(table) :])


def count(text: str) -> int:
    """A number as tables write it."""
    return int(text.replace(",", ""))


def right(defense: str, n: int) -> int:
    """How many of the first examples a defense gets right."""
    prepared = prepare(RunConfig(defenses=(defense,), n=n, device="cpu", twins=False))
    examples = prepared.examples
    with torch.no_grad():
        predicted = prepared.contenders[0].load()(examples.inputs).argmax(dim=1)
    return int((predicted == examples.labels).sum())
