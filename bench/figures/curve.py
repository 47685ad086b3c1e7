"""`curve`: robust accuracy against epsilon, from the summaries of stored runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import UnknownNameError, UsageError
from bench.figures.canvas import canvas, colour, literal
from bench.record.statistics import wilson
from bench.report.markdown import ran
from bench.report.writing import interval
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from bench.report.writing import Summary

WORST_CASE = "worst case"

#: What has to agree for curves to share their axes.
SHARED = ("dataset", "data_digest", "norm", "judging")


@dataclass(frozen=True)
class Line:
    """One defense under one attack, or in the worst case over all."""

    defense: str
    run: str
    attack: str
    """`WORST_CASE`, or an attack's name."""
    epsilons: tuple[str, ...]
    """As written, ascending; the first is 0, whose accuracy is the clean one."""
    accuracies: tuple[float, ...]
    """Fractions of 1, one for each epsilon."""
    low: tuple[float, ...]
    high: tuple[float, ...]
    """The ends of the 95 % Wilson intervals."""
    n: int
    note: str
    """For the legend: the figure at the headline epsilon, the count, the verdict."""

    @property
    def distances(self) -> list[float]:
        """The epsilons as numbers."""
        return [_value(epsilon) for epsilon in self.epsilons]


@dataclass(frozen=True)
class Curves:
    """All lines of a figure, a worst case before the attacks of the same defense."""

    lines: tuple[Line, ...]
    norm: str
    caption: str
    """What is shown, and what made it."""

    def columns(self) -> dict[str, list[Any]]:
        """A row for each point of each line."""
        points = [(line, place) for line in self.lines for place in range(len(line.epsilons))]
        return {
            "run": [line.run for line, _ in points],
            "defense": [line.defense for line, _ in points],
            "attack": [line.attack for line, _ in points],
            "epsilon": [line.epsilons[place] for line, place in points],
            "accuracy": [line.accuracies[place] for line, place in points],
            "low": [line.low[place] for line, place in points],
            "high": [line.high[place] for line, place in points],
            "n": [line.n for line, _ in points],
        }


def trace(summaries: Sequence[Summary], attacks: Sequence[str] = ()) -> Curves:
    """The curves of all defenses of some runs.

    Args:
        summaries: as `bench.record.runs.read_summary` gives them, at least one.
        attacks: rows to draw beside the worst case, by canonical name.

    Raises:
        UsageError: runs on other data or under another norm or judge, whose figures cannot be
            compared, or no defense with a figure.
        UnknownNameError: an attack that no run has.
    """
    first = summaries[0]
    for other in summaries[1:]:
        for key in SHARED:
            if other.get(key) != first.get(key):
                raise UsageError(
                    f"runs {first['run']} and {other['run']} cannot be compared: {key} is "
                    f"{first.get(key)!r} in one, {other.get(key)!r} in the other; draw them apart"
                )
    entries = [(s, name) for s in summaries for name in s["defenses"]]
    known = {attack for s, name in entries for attack in s["defenses"][name]["attacks"]}
    for attack in attacks:
        if attack not in known:
            raise UnknownNameError("attack of these runs", attack, known)
    lines = [
        line
        for summary, name in entries
        for attack in (WORST_CASE, *attacks)
        if (line := _line(summary, name, attack)) is not None
    ]
    if not lines:
        raise UsageError("these runs hold no finished figure to draw; continue them with run")
    return Curves(tuple(lines), first["norm"], _caption(summaries, entries))


def _line(summary: Summary, name: str, attack: str) -> Line | None:
    """One line; None where the attack, or the defense, has no figure at any epsilon."""
    defense = summary["defenses"][name]
    n = int(summary["n"])
    clean = defense["clean_accuracy"]
    worst = attack == WORST_CASE
    cells = defense["worst_case"] if worst else defense["attacks"].get(attack, {})
    found = {
        epsilon: cells[epsilon]
        for epsilon in sorted(cells, key=_value)
        if cells[epsilon]["robust_accuracy"] is not None
    }
    if clean is None or not found:
        return None
    low, high = wilson(clean * n, n)
    return Line(
        defense=name,
        run=summary["run"],
        attack=attack,
        epsilons=("0", *found),
        accuracies=(clean, *(cell["robust_accuracy"] for cell in found.values())),
        low=(low, *(cell["low"] for cell in found.values())),
        high=(high, *(cell["high"] for cell in found.values())),
        n=n,
        note=_note(cells.get(summary["headline"]), summary["headline"], n, worst=worst),
    )


def _note(cell: dict[str, Any] | None, headline: str, n: int, *, worst: bool) -> str:
    """The figure at the headline epsilon, the count, and in the worst case the verdict."""
    figure = "no figure" if cell is None else f"{interval(cell)} %"
    note = f"{figure} @ {headline}, n = {n}"
    if not worst:
        return note
    missing = "" if cell and cell["complete"] else ", incomplete"
    verdict = (cell or {}).get("verdict") or "no verdict"
    return f"{note}, {verdict}{missing}"


def _value(epsilon: str) -> float:
    return 0.0 if epsilon == "0" else float(Epsilon.parse(epsilon))


def _caption(summaries: Sequence[Summary], entries: Sequence[tuple[Summary, str]]) -> str:
    models = ", ".join(
        f"{name} ({part['weights_digest'][:8]}, {ran(part, s['headline'])} attacks)"
        for s, name in entries
        for part in [s["defenses"][name]]
    )
    runs = ", ".join(
        f"{s['run'][:8]} (seed {s['seed']}, torch "
        f"{s['provenance'].get('versions', {}).get('torch', 'unknown')})"
        for s in summaries
    )
    first = summaries[0]
    return (
        f"Robust accuracy within {first['norm']} epsilon; at 0 clean accuracy. Solid: worst case "
        "per example over all attacks, with its 95 % Wilson interval; dashed: one attack alone. "
        f"{models}; {first['dataset']}, n = {first['n']}; runs {runs}."
    )


def draw(data: Curves) -> Figure:
    """One pair of axes, with the caption below."""
    figure = canvas(8.5, 6.0, data.caption)
    panel = figure.subplots()
    draw_lines(panel, data)
    figure.legend(fontsize=7, loc="outside upper left", ncols=2, frameon=False)
    return figure


def draw_lines(panel: Axes, data: Curves) -> None:
    """All lines on a pair of axes, each labelled; a defense of one run keeps its colour."""
    from matplotlib.ticker import PercentFormatter

    owners = list(dict.fromkeys((line.run, line.defense) for line in data.lines))
    names = [defense for _, defense in owners]
    dashes = ["--", ":", "-."]
    drawn = list(dict.fromkeys(line.attack for line in data.lines if line.attack != WORST_CASE))
    for line in data.lines:
        shade = colour(owners.index((line.run, line.defense)))
        name = line.defense
        if names.count(name) > 1:
            name = f"{name} [{line.run[:8]}]"
        solid = line.attack == WORST_CASE
        panel.plot(
            line.distances, line.accuracies, color=shade, marker="o", markersize=3,
            linestyle="-" if solid else dashes[drawn.index(line.attack) % len(dashes)],
            linewidth=1.8 if solid else 1.0,
            label=literal(f"{name}, {line.attack}: {line.note}"),
        )  # fmt: skip
        if solid:
            panel.fill_between(
                line.distances, line.low, line.high, color=shade, alpha=0.12, linewidth=0
            )
    ticks = {_value(epsilon): epsilon for line in data.lines for epsilon in line.epsilons}
    panel.set_xticks(sorted(ticks), [ticks[value] for value in sorted(ticks)])
    panel.set(xlabel=f"{data.norm} epsilon", ylabel="accuracy", ylim=(0, 1), xlim=(0, max(ticks)))
    panel.yaxis.set_major_formatter(PercentFormatter(1.0))
