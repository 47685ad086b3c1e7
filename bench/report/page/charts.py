"""Where the lines of a chart go: numbers for the SVG in the templates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.report.writing import percent
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The drawing of a curve, and what its axes leave to it, in units of the SVG.
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 460, 300, 40, 446, 14, 262


@dataclass(frozen=True)
class Mark:
    """A point of a curve."""

    x: float
    y: float
    high: float
    """Top of its interval; `y` where there is none."""
    low: float
    """Bottom of it."""


@dataclass(frozen=True)
class Curve:
    """Robust accuracy against epsilon, of an attack or of all together."""

    name: str
    kind: str
    """`worst`, `twin` or `attack`."""
    said: str
    """Its figures in words."""
    marks: tuple[Mark, ...]

    @property
    def points(self) -> str:
        """For a polyline."""
        return " ".join(f"{mark.x:g},{mark.y:g}" for mark in self.marks)

    @property
    def band(self) -> str:
        """For a polygon around the intervals."""
        around = [(m.x, m.high) for m in self.marks] + [(m.x, m.low) for m in self.marks[::-1]]
        return " ".join(f"{x:g},{y:g}" for x, y in around)


@dataclass(frozen=True)
class CurveChart:
    """All curves of a defense, and the ticks of the axes."""

    worst: Curve
    twin: Curve | None
    attacks: tuple[Curve, ...]
    """By the figure at the headline epsilon, the lowest first."""
    ticks: tuple[tuple[float, str], ...]
    """Of epsilon: place, and as written."""
    levels: tuple[tuple[float, str], ...]
    """Of accuracy: place and percent."""


def draw_curves(
    part: dict[str, Any], epsilons: Sequence[str], headline: str, twin: tuple[str, Any] | None
) -> CurveChart:
    """The curves of a defense.

    Args:
        part: the defense's, of a summary.
        epsilons: as written, ascending.
        headline: the one that orders attacks.
        twin: name and part of the ReLU twin.
    """
    reach = max(float(Epsilon.parse(epsilon)) for epsilon in epsilons)

    def place(epsilon: str) -> float:
        radius = 0.0 if epsilon == "0" else float(Epsilon.parse(epsilon))
        return round(LEFT + (RIGHT - LEFT) * radius / reach, 1)

    def curve(name: str, kind: str, cells: dict[str, Any], clean: float | None) -> Curve:
        start = {} if clean is None else {"0": {"robust_accuracy": clean}}
        known = {
            epsilon: cell
            for epsilon, cell in (start | {e: cells[e] for e in epsilons if e in cells}).items()
            if cell.get("robust_accuracy") is not None
        }
        marks = tuple(_mark(place(epsilon), cell) for epsilon, cell in known.items())
        return Curve(name, kind, _said(known), marks)

    clean = part["clean_accuracy"]
    attacks = [curve(name, "attack", cells, clean) for name, cells in part["attacks"].items()]
    return CurveChart(
        worst=curve("worst case", "worst", part["worst_case"], clean),
        twin=curve(f"twin {twin[0]}", "twin", twin[1]["worst_case"], twin[1]["clean_accuracy"])
        if twin
        else None,
        attacks=tuple(
            sorted(
                (each for each in attacks if len(each.marks) > (clean is not None)),
                key=lambda each: (_at(part["attacks"][each.name], headline), each.name),
            )
        ),
        ticks=_apart([(place("0"), "0"), *((place(epsilon), epsilon) for epsilon in epsilons)]),
        levels=tuple((_height(level / 100), f"{level}") for level in (0, 25, 50, 75, 100)),
    )


def _at(cells: dict[str, Any], epsilon: str) -> float:
    figure = cells.get(epsilon, {}).get("robust_accuracy")
    return 2.0 if figure is None else float(figure)


def _height(share: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * share, 1)


def _mark(x: float, cell: dict[str, Any]) -> Mark:
    y = _height(cell["robust_accuracy"])
    ends = [cell.get(end) for end in ("high", "low")]
    high, low = (y if end is None else _height(end) for end in ends)
    return Mark(x, y, high, low)


def _said(known: dict[str, Any]) -> str:
    return ", ".join(
        f"clean {percent(cell['robust_accuracy'])} %"
        if epsilon == "0"
        else f"{percent(cell['robust_accuracy'])} % at {epsilon}"
        for epsilon, cell in known.items()
    )


def _apart(ticks: list[tuple[float, str]]) -> tuple[tuple[float, str], ...]:
    """The ticks whose words do not run into one another; the last is always there."""
    kept = [ticks[-1]]
    for x, text in reversed(ticks[:-1]):
        if kept[-1][0] - x >= 3.6 * (len(text) + len(kept[-1][1])) + 8:
            kept.append((x, text))
    return tuple(reversed(kept))


def share(value: float, most: float, width: float) -> float:
    """The length of a bar whose longest is `width`; never too short to be seen."""
    return round(max(width * value / most, 0.8 if value else 0.0), 1) if most else 0.0
