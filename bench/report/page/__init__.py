"""Records in, one HTML file out: it opens offline, and nothing in it reaches outside.

Everything from records is escaped by Jinja2. The page's own style and script are the only ones that
its Content-Security-Policy lets in, by their digests; it allows no request at all.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from typing import TYPE_CHECKING, Any

from bench.errors import printable
from bench.report.page.views import view
from bench.report.page.words import FAMILIES, KINDS, VERDICTS
from bench.report.ranking import ranked_tables
from bench.report.writing import percent

if TYPE_CHECKING:
    from jinja2 import Environment

    from bench.report.page.gallery import Gallery
    from bench.report.ranking import Entry
    from bench.report.writing import Summary

#: Beside each verdict, so that none is told by its colour alone.
SIGNS = {"credible": "✓", "suspect": "?", "unreliable": "!", "broken": "×"}


@dataclass(frozen=True)
class PageRun:
    """A run as the page needs it."""

    summary: Summary
    galleries: dict[str, Gallery]
    """By defense, where there are pictures."""
    no_gallery: str
    """Why a defense has none."""


def render_page(runs: list[PageRun]) -> str:
    """The page of some runs; the same runs give the same bytes.

    Args:
        runs: finished ones, each with a summary as this version reads it.
    """
    by_run = {run.summary["run"]: run for run in runs}
    tables = ranked_tables([run.summary for run in by_run.values()])
    ordered = [[entry for row in table.rows for entry in row.entries] for table in tables]
    anchors = {
        (entry.summary["run"], entry.name): f"d{number}"
        for number, entry in enumerate(chain.from_iterable(ordered), start=1)
    }

    def seen(entry: Entry) -> Any:
        run = by_run[entry.summary["run"]]
        place = anchors[entry.summary["run"], entry.name]
        return view(run.summary, entry.name, place, run.galleries.get(entry.name), run.no_gallery)

    environment = _environment()
    style, script = (_text(name) for name in ("page.css", "page.js"))
    return environment.get_template("page.html").render(
        style=style,
        script=script,
        policy=_policy(style, script),
        tables=tables,
        anchors=anchors,
        sections=[list(map(seen, entries)) for entries in ordered],
        summaries=[by_run[key].summary for key in sorted(by_run)],
        families=FAMILIES,
        kinds=KINDS,
        verdicts=VERDICTS,
        signs=SIGNS,
    )


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_text),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    environment.filters |= {"percent": percent, "points": lambda value: f"{100 * value:+.1f}"}
    return environment


def _text(name: str) -> str:
    """A file of the page's own."""
    return files("bench.report.page").joinpath("templates", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What a browser may load: this style, this script, images that are in the page."""
    digests = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (style, script)
    ]
    return (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; "
        f"style-src 'sha256-{digests[0]}'; script-src 'sha256-{digests[1]}'"
    )
