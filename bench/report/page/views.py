"""What the page says of each defense, ready for its templates: no template decides anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.record.summary import NOT_EXAMINED, examinations
from bench.report.markdown import strongest
from bench.report.page.charts import draw_curves, share
from bench.report.page.matrix import attack_rows, published_row, suite_rows, worst_row
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from bench.report.page.charts import CurveChart
    from bench.report.page.gallery import Gallery
    from bench.report.page.matrix import MatrixRow
    from bench.report.writing import Summary


@dataclass(frozen=True)
class Finding:
    """One item of evidence."""

    item: dict[str, Any]
    """As `evidence.json` has it."""
    bar: float
    """Length of the bar of what was measured, of 100."""
    limit: float
    """Where its threshold stands on that bar."""
    count: bool
    """Whether examples were counted: the bar is of all that were looked at, and else of 1."""

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
    def gray(self) -> bool:
        """Whether its pictures have one channel."""
        return self.gallery is not None and self.gallery.gray

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
        worst=worst_row(summary, part),
        suites=suite_rows(part, epsilons),
        published=published_row(part, epsilons),
        rows=attack_rows(summary, part),
        lowest=strongest(part, headline),
        beyond=_beyond(part, headline),
        flags=_flags(part),
        gallery=gallery,
        no_gallery=no_gallery,
    )


def _twin(summary: Summary, part: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
    name = part.get("twin") or ""
    every = {**summary["defenses"], **summary.get("controls", {})}
    return (name, every[name]) if name in every and every[name] is not part else None


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
    count = threshold >= 1 and measured == int(measured)
    most = max(measured, threshold, item.get("n", 0) if count else 1)
    return Finding(item, share(max(measured, 0), most, 100), share(threshold, most, 99), count)


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
