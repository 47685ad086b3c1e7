"""The matrix of a defense: attack × epsilon, with what each attack took."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.markdown import published_figure
from bench.report.page.charts import share

if TYPE_CHECKING:
    from bench.report.writing import Summary

#: What a summary says of a cell's cost.
COST = ("forwards", "backwards", "seconds")
#: Steps of colour in a matrix.
STEPS = 10


@dataclass(frozen=True)
class Heat:
    """A place of the matrix."""

    figure: float | None
    """Robust accuracy; None where `text` says what there is instead."""
    text: str = ""
    level: int | None = None
    """Colour, from 0 (all robust) to `STEPS` (none)."""
    inferred: bool = False
    """Whether not every example was attacked here."""
    unfinished: bool = False
    order: float = 2.0
    """What it is sorted by; empty places come last."""


@dataclass(frozen=True)
class MatrixRow:
    """One attack, a suite, or all together."""

    name: str
    mark: str
    """`misled` or `failed`, where the figure is not simply to be believed."""
    escalated: bool
    """Whether the examination asked for it, and nobody else did."""
    cells: tuple[Heat, ...]
    """By epsilon."""
    forwards: int = 0
    backwards: int = 0
    seconds: float = 0.0
    bar: float = 0.0
    """Length of the bar of its passes, of 100."""
    seconds_bar: float = 0.0

    @property
    def passes(self) -> int:
        """Forwards and backwards of one example."""
        return self.forwards + self.backwards


def _heat(cell: dict[str, Any] | None) -> Heat:
    if cell is None:
        return Heat(None, "–")
    if cell.get("status", "ok") != "ok":
        return Heat(None, str(cell["status"]))
    if cell.get("scope") == "remaining":
        return Heat(None, f"−{cell['broken']} of {cell['attacked']}", order=1.5)
    figure = cell["robust_accuracy"]
    if figure is None:
        return Heat(None, "–")
    return Heat(
        figure,
        level=round(STEPS * (1 - figure)),
        inferred=cell.get("source") == "inferred" or bool(cell.get("inferred")),
        unfinished=not cell.get("complete", True),
        order=figure,
    )


def _heats(cells: dict[str, Any], epsilons: list[str]) -> tuple[Heat, ...]:
    return tuple(_heat(cells.get(epsilon)) for epsilon in epsilons)


def worst_row(summary: Summary, part: dict[str, Any]) -> MatrixRow:
    """All attacks together."""
    cost, cells = part["cost"], _heats(part["worst_case"], summary["epsilons"])
    return MatrixRow("worst case", "", False, cells, **{key: cost[key] for key in COST})


def suite_rows(part: dict[str, Any], epsilons: list[str]) -> tuple[MatrixRow, ...]:
    """The attacks of each suite together."""
    return tuple(
        MatrixRow(f"{suite}, together", "", False, _heats(cells, epsilons))
        for suite, cells in part.get("suites", {}).items()
    )


def published_row(part: dict[str, Any], epsilons: list[str]) -> MatrixRow | None:
    """What others published; None where they did not."""
    theirs = part.get("published")
    if not theirs:
        return None
    figure = published_figure(theirs)
    cells = {theirs["epsilon"]: {"robust_accuracy": figure}}
    return MatrixRow(f"published by {theirs['source']}", "", False, _heats(cells, epsilons))


def attack_rows(summary: Summary, part: dict[str, Any]) -> tuple[MatrixRow, ...]:
    """Attacks that ran, the strongest at the headline epsilon first."""
    rows = []
    for attack, cells in part["attacks"].items():
        if all(cell["status"] == "skipped" for cell in cells.values()):
            continue
        mark = part.get("marks", {}).get(attack)
        rows.append(
            MatrixRow(
                attack,
                mark if mark in ("misled", "failed") else "",
                all(cell["escalated"] for cell in cells.values()),
                _heats(cells, summary["epsilons"]),
                **{key: sum(cell[key] for cell in cells.values()) for key in COST},
            )
        )
    most = max((row.passes for row in rows), default=0)
    longest = max((row.seconds for row in rows), default=0.0)
    place = summary["epsilons"].index(summary["headline"])
    drawn = [
        dataclasses.replace(
            row,
            bar=share(row.passes, most, 100),
            seconds_bar=share(row.seconds, longest, 100),
        )
        for row in rows
    ]
    return tuple(sorted(drawn, key=lambda row: (row.cells[place].order, row.name)))
