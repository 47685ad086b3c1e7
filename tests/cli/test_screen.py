"""What a run leaves on a terminal: tables fit it, and the answer is the last thing."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

import bench
from bench.cli.screen import show_markdown
from bench.record.older import upgraded
from bench.report import render_leaderboard
from bench.report.glance import closing, spent
from bench.report.writing import escape, table
from tests.report.summaries import NAME, summary

PUBLISHED = sorted(Path(bench.__file__).parent.parent.glob("results/published/*/summary.json"))


def shown(text: str, width: int) -> list[str]:
    """The lines on a terminal that wide."""
    file = io.StringIO()
    show_markdown(text, Console(file=file, force_terminal=True, width=width, color_system=None))
    return re.sub("\x1b\\[[0-9;]*m", "", file.getvalue()).splitlines()


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_a_published_run_fits(path: Path, width: int) -> None:
    """No line is wider, and no figure of its matrices is cut or folded."""
    found = upgraded(json.loads(path.read_text(encoding="utf-8")))
    lines = shown(render_leaderboard([found]), width)
    assert max(map(cell_len, lines)) <= width
    words = set(" ".join(lines).split())
    for part in found["defenses"].values():
        for worst in part["worst_case"].values():
            assert f"{100 * worst['robust_accuracy']:.1f}" in words


def matrix(epsilons: int, passes: int) -> str:
    """A table of many columns, with a long name."""
    header = ["attack", *(f"ε = {i}/255" for i in range(epsilons)), "passes"]
    name = escape("mi-fgsm[accumulate=gradients,rel_stepsize=0.2258]") + " (misled)"
    cells = [f"{10 + i}.5 ‡" for i in range(epsilons)]
    rows = [[name, *cells, f"{passes:,}"], ["**worst case**", *cells, f"{passes:,}"]]
    return table(header, rows, text=frozenset({"attack"}))


@pytest.mark.parametrize("epsilons", [4, 5, 12])
def test_a_matrix_of_long_names_and_many_epsilons_fits(epsilons: int) -> None:
    """Names fold, numbers are shortened, and what is left over stands below with its names."""
    lines = shown(matrix(epsilons, 2_420_494), 80)
    assert max(map(cell_len, lines)) <= 80
    text = "\n".join(lines)
    for i in range(epsilons):
        assert text.count(f"{10 + i}.5 ‡") == 2
    folded = re.sub(r"\s+", "", "".join(line[:25] for line in lines))
    assert "mi-fgsm[accumulate=" in folded
    assert "2.42M" in text or "2,420,494" in text
    parts = text.count("attack")
    assert text.count("worst case") == parts
    assert (parts > 1) == (epsilons == 12)


def test_a_wide_terminal_shows_numbers_in_full() -> None:
    """Nothing is shortened without need."""
    text = "\n".join(shown(matrix(4, 2_420_494), 140))
    assert "2,420,494" in text
    assert "ε = 3/255" in text
    assert "mi-fgsm[accumulate=gradients,rel_stepsize=0.2258] (misled)" in text


def test_the_end_of_a_run_names_worst_case_verdict_and_the_attack_that_leads() -> None:
    """Two lines a defense; what no row shows is named."""
    found: dict[str, Any] = summary()
    found["defenses"][NAME]["attacks"]["square"]["8/255"]["robust_accuracy"] = 0.4
    first, second = closing(found, NAME).splitlines()
    assert first == (f"{NAME}: worst case 34.5 (28.0–41.0) % at ε = 8/255, unreliable, n = 200")
    assert second == "  lowest row: square, 40.0 %"


def test_what_a_run_took_counts_the_twin_apart_and_together() -> None:
    """Sums over all attacks of each, as its own table has them; one defense alone needs no sum."""
    found = upgraded(json.loads(PUBLISHED[0].read_text(encoding="utf-8")))
    (name,) = list(found["defenses"])[:1]
    found["defenses"] = {name: found["defenses"][name]}
    found["defenses"][name]["cost"] = {"forwards": 1200, "backwards": 34, "seconds": 5.4}
    found["controls"] = {}
    assert spent(found) == f"passes: {name} 1,234 (5 s)"
    twin = {"cost": {"forwards": 1, "backwards": 1, "seconds": 2.2}}
    found["controls"] = {"relu": twin}
    assert spent(found) == (f"passes: {name} 1,234 (5 s), twin relu 2 (2 s); together 1,236 (8 s)")
