"""Lines of attacks beside one another: what each leaves, and all of its passes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.scripts import count, printed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    import pytest


def test_adaptive(
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A line of several attacks is their per-example AND, for all of their passes."""
    adaptive = script("adaptive")
    light = "adaptive[preset=light]"
    lines = {light: (light,), "fgsm": ("fgsm",), "both": ("fgsm", light)}
    monkeypatch.setattr(adaptive, "LINES", lines)
    picture = tmp_path / "curve.svg"
    adaptive.main(["--n", "6", "--seeds", "0,1", "--defenses", "relu", "--figure", f"{picture}"])
    assert all(f"<!-- {name} -->" in picture.read_text() for name in lines)

    rows, below = printed(capsys)
    by = {row["attack"].replace("\\", ""): row for row in rows}
    assert by.keys() == lines.keys()
    for seed in ("seed 0", "seed 1"):
        robust = {name: float(row[seed]) for name, row in by.items()}
        assert robust["both"] <= min(robust["fgsm"], robust[light])
    spent = {name: count(row["passes"]) for name, row in by.items()}
    assert abs(spent["both"] - spent["fgsm"] - spent[light]) <= 1  # means, rounded
    assert [count(row["passes"]) for row in rows] == sorted(spent.values())
    assert f"Linf = {adaptive.EPSILON}" in below

    adaptive.main(["--n", "6", "--seeds", "0", "--defenses", "kwta", "--undeclared"])
    rows, _ = printed(capsys)
    assert [row["attack"].replace("\\", "") for row in rows] == list(adaptive.UNDECLARED)
