"""What the page says of each defense, ready for its templates: no template decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.record.summary import NOT_EXAMINED, examinations
from bench.report.markdown import published_figure, strongest
from bench.report.page.charts import CurveChart, draw_curves, share
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from bench.report.markdown import Summary
    from bench.report.page.gallery import Gallery

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


@dataclass(frozen=True)
class Finding:
    """One item of evidence."""

    item: dict[str, Any]
    """As `evidence.json` has it."""
    bar: float
    """Length of the bar of what was measured, of 100."""
    limit: float
    """Where its threshold stands on that bar."""

    @property
    def drawn(self) -> bool:
        """Whether there is a number, and a threshold that it is held to."""
        measured, threshold = self.item.get("measured"), self.item.get("threshold")
        return measured is not None and bool(threshold) and measured >= 0


@dataclass(frozen=True)
class Examined:
    """What was gathered about a defense at one epsilon."""

    epsilon: str
    level: str
    reasons: tuple[str, ...]
    failed: tuple[Finding, ...]
    passed: tuple[Finding, ...]
    not_run: tuple[Finding, ...]
    comparison: dict[str, Any] | None
    """With the twin."""


@dataclass(frozen=True)
class DefenseView:
    """One defense of one run."""

    anchor: str
    """Of its section in the page; a number, for names may hold anything."""
    name: str
    summary: Summary
    part: dict[str, Any]
    """The defense's, of the summary."""
    level: str
    """The verdict at the headline epsilon."""
    examined: tuple[Examined, ...]
    """The headline epsilon first."""
    chart: CurveChart
    worst: MatrixRow
    suites: tuple[MatrixRow, ...]
    published: MatrixRow | None
    rows: tuple[MatrixRow, ...]
    """The strongest at the headline epsilon first."""
    lowest: str
    beyond: tuple[str, ...]
    """What attacks on the examples that were left broke."""
    flags: tuple[str, ...]
    gallery: Gallery | None
    no_gallery: str
    """Why there is none."""

    @property
    def worst_case(self) -> dict[str, Any]:
        """At the headline epsilon."""
        found: dict[str, Any] = self.part["worst_case"][self.summary["headline"]]
        return found

    @property
    def limits(self) -> list[tuple[str, float]]:
        """The epsilons as written, with the largest distance that counts as within."""
        return [(e, float(Epsilon.parse(e)) + TOLERANCE) for e in self.summary["epsilons"]]

    @property
    def by_cost(self) -> list[MatrixRow]:
        """Attacks by what they took, the dearest first."""
        return sorted(self.rows, key=lambda row: (-row.passes, row.name))


def view(
    summary: Summary, name: str, anchor: str, gallery: Gallery | None, no_gallery: str
) -> DefenseView:
    """A defense as the page shows it.

    Args:
        summary: of its run.
        name: of the defense.
        anchor: of its section.
        gallery: of its adversarial examples.
        no_gallery: why there is none.
    """
    part, headline, epsilons = summary["defenses"][name], summary["headline"], summary["epsilons"]
    found = examinations(summary, part)
    level = part["worst_case"][headline].get("verdict") or NOT_EXAMINED
    return DefenseView(
        anchor=anchor,
        name=name,
        summary=summary,
        part=part,
        level=level,
        examined=tuple(_examined(epsilon, each) for epsilon, each in found.items()),
        chart=draw_curves(part, epsilons, headline, _twin(summary, part)),
        worst=_worst(summary, part),
        suites=tuple(
            MatrixRow(f"{suite}, together", "", False, _heats(cells, epsilons))
            for suite, cells in part.get("suites", {}).items()
        ),
        published=_published(part, epsilons),
        rows=_rows(summary, part),
        lowest=strongest(part, headline),
        beyond=_beyond(part, headline),
        flags=_flags(part),
        gallery=gallery,
        no_gallery=no_gallery,
    )


def _twin(summary: Summary, part: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    name = part.get("twin")
    every = {**summary["defenses"], **summary.get("controls", {})}
    return (name, every[name]) if name in every and every[name] is not part else None


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


def _worst(summary: Summary, part: dict[str, Any]) -> MatrixRow:
    cost, cells = part["cost"], _heats(part["worst_case"], summary["epsilons"])
    spent = cost["forwards"], cost["backwards"], cost["seconds"]
    return MatrixRow("worst case", "", False, cells, *spent)


def _published(part: dict[str, Any], epsilons: list[str]) -> MatrixRow | None:
    theirs = part.get("published")
    if not theirs:
        return None
    figure = published_figure(theirs)
    cells = {theirs["epsilon"]: {"robust_accuracy": figure}}
    return MatrixRow(f"published by {theirs['source']}", "", False, _heats(cells, epsilons))


def _rows(summary: Summary, part: dict[str, Any]) -> tuple[MatrixRow, ...]:
    rows = [
        MatrixRow(
            attack,
            _mark(part.get("marks", {}).get(attack)),
            all(cell["escalated"] for cell in cells.values()),
            _heats(cells, summary["epsilons"]),
            *(sum(cell[key] for cell in cells.values()) for key in ("forwards", "backwards")),
            seconds=sum(cell["seconds"] for cell in cells.values()),
        )
        for attack, cells in part["attacks"].items()
        if any(cell["status"] != "skipped" for cell in cells.values())
    ]
    most = max((row.passes for row in rows), default=0)
    longest = max((row.seconds for row in rows), default=0.0)
    place = summary["epsilons"].index(summary["headline"])
    drawn = [
        MatrixRow(
            **{
                **vars(row),
                "bar": share(row.passes, most, 100),
                "seconds_bar": share(row.seconds, longest, 100),
            }
        )
        for row in rows
    ]
    return tuple(sorted(drawn, key=lambda row: (row.cells[place].order, row.name)))


def _mark(mark: str | None) -> str:
    return mark if mark in ("misled", "failed") else ""


def _examined(epsilon: str, found: dict[str, Any]) -> Examined:
    evidence = [_finding(item) for item in found.get("evidence", [])]

    def those(status: str) -> tuple[Finding, ...]:
        return tuple(each for each in evidence if each.item["status"] == status)

    ruling = found["verdict"]
    return Examined(
        epsilon,
        ruling["level"],
        tuple(ruling["reasons"]),
        those("fail"),
        those("pass"),
        those("not run"),
        found.get("comparison"),
    )


def _finding(item: dict[str, Any]) -> Finding:
    measured, threshold = item.get("measured") or 0.0, item.get("threshold") or 0.0
    most = 1.15 * max(measured, threshold)
    return Finding(item, share(max(measured, 0), most, 100), share(threshold, most, 100))


def _beyond(part: dict[str, Any], epsilon: str) -> tuple[str, ...]:
    """What attacks on what was left broke: without them a worst case can lie below every row."""
    return tuple(
        f"{attack} {cells[epsilon]['broken']} of {cells[epsilon]['attacked']}"
        for attack, cells in sorted(part["attacks"].items())
        if epsilon in cells
        and cells[epsilon]["status"] == "ok"
        and cells[epsilon]["scope"] == "remaining"
        and cells[epsilon]["broken"]
    )


def _flags(part: dict[str, Any]) -> tuple[str, ...]:
    """What failed or did not run, and what attacks want a reader to know."""
    notes = [f"{i['attack']} at {i['epsilon']} failed: {i['reason']}" for i in part["failed"]]
    notes += [f"{item['attack']} not run: {item['reason']}" for item in part["skipped"]]
    flags: dict[tuple[str, str], list[str]] = {}
    for attack, cells in part["attacks"].items():
        for epsilon in sorted(cells, key=lambda text: float(Epsilon.parse(text))):
            for flag in cells[epsilon]["flags"]:
                flags.setdefault((attack, flag), []).append(epsilon)
    notes += [f"{attack} at {', '.join(at)}: {flag}" for (attack, flag), at in flags.items()]
    return tuple(notes)
