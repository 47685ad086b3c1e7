"""The HTML page of runs, without a browser: what it says, and that nothing can get into it."""

from __future__ import annotations

import base64
import hashlib
import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.cli.runs import report
from bench.record.runs import read_summary
from bench.report.page import PageRun, render_page
from bench.report.page.charts import BOTTOM, LEFT, RIGHT, TOP, draw_curves
from bench.run.page import write_page
from tests.commands import interpret
from tests.report.conftest import PUBLISHED, SMALL
from tests.report.markup import Markup

if TYPE_CHECKING:
    from pathlib import Path


HOSTILE = "\"><script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7 * 7 }}\x1b[31m"


def page_of(*summaries: dict[str, Any]) -> str:
    """The page of runs without pictures."""
    return render_page([PageRun(each, {}, "none here") for each in summaries])


@pytest.fixture(scope="module")
def published() -> str:
    """The page of a published run with four defenses."""
    return page_of(read_summary(PUBLISHED))


@pytest.fixture(scope="module")
def shown(stored: Path) -> str:
    """The page of a stored run with pictures."""
    path = write_page({stored: read_summary(stored)}, stored.parent / "page.html")
    return path.read_text(encoding="utf-8")


def replaced(value: Any, old: str, new: str) -> Any:
    """A summary with a text exchanged wherever it stands, keys included."""
    if isinstance(value, dict):
        return {replaced(k, old, new): replaced(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [replaced(each, old, new) for each in value]
    return value.replace(old, new) if isinstance(value, str) else value


def strings(value: Any) -> set[str]:
    """Every text in a summary, keys included."""
    if isinstance(value, dict):
        return set().union(*map(strings, [*value.keys(), *value.values()]))
    if isinstance(value, list):
        return set().union(*map(strings, value))
    return {value} if isinstance(value, str) else set()


def test_whatever_a_summary_says_stays_text() -> None:
    """Every name and sentence of a summary made hostile adds no element and no attribute."""
    found = read_summary(SMALL)
    plain = Markup.of(page_of(found))
    names = [*found["defenses"], "pgd", "soft", "gradients", "misled",
             found["dataset"], found["provenance"]["commit"]]  # fmt: skip
    sentences = sorted(text for text in strings(found) if text.count(" ") > 2)
    assert {*names} <= strings(found)
    assert len(sentences) > 20
    for name in [*sentences, *names]:
        found = replaced(found, name, f"{name}{HOSTILE}")
    text = page_of(found)
    markup = Markup.of(text)

    assert markup.text.count("<script>alert(1)") > 100
    assert "{{ 7 * 7 }}" in markup.text
    assert [len(markup.all(tag)) for tag in ("script", "img")] == [1, 0]
    assert {key for each in markup.elements for key in each.attributes} <= {
        key for each in plain.elements for key in each.attributes
    }
    assert "\x1b" not in text


def test_a_hostile_name_is_shown_as_it_is() -> None:
    """A defense's name in the table, the heading and the labels, letter by letter."""
    name = "a<b>&\"c'"
    markup = Markup.of(page_of(replaced(read_summary(SMALL), "kwta-fast", name)))

    assert name in [each.text.strip() for each in markup.all("h2")]
    assert name in [each.text for each in markup.all("a")]
    assert f"Matrix of {name}, run {SMALL.name[:8]}" in [
        e.attributes.get("aria-label") for e in markup.all("div")
    ]


def test_the_policy_lets_in_its_own_style_and_script_alone(shown: str) -> None:
    """By the digests of what stands in the page, and no address of anything else."""
    markup = Markup.of(shown)
    policy = next(e for e in markup.all("meta") if e.attributes.get("http-equiv"))
    allowed = dict(part.strip().split(" ", 1) for part in policy.attributes["content"].split(";"))

    for tag in ("style", "script"):
        (element,) = markup.all(tag)
        digest = base64.b64encode(hashlib.sha256(element.text.encode()).digest()).decode()
        assert allowed.pop(f"{tag}-src") == f"'sha256-{digest}'"
        assert element.attributes == {}
    assert allowed == {
        "default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "img-src": "data:",
    }  # fmt: skip


def test_nothing_in_it_leads_outside(shown: str, published: str) -> None:
    """Links go to places in the page, each there once; images are in it; no style by attribute."""
    for text in (shown, published):
        markup = Markup.of(text)
        places = [e.attributes["id"] for e in markup.elements if "id" in e.attributes]
        assert len(places) == len({*places})
        for element in markup.elements:
            assert "style" not in element.attributes
            assert not [key for key in element.attributes if key.startswith("on")]
            href = element.attributes.get("href", "#main")
            assert href[1:] in places or (element.tag, href) == ("link", "data:,")
            assert element.attributes.get("src", "data:image/png;").startswith("data:image/png;")


def test_it_says_every_figure_of_the_matrix(published: str) -> None:
    """Each attack's robust accuracy by epsilon, as the summary has it, in the row of its name."""
    found, markup = read_summary(PUBLISHED), Markup.of(published)
    rows = re.findall(r'<tr data-name="(.*?)".*?</tr>', published, re.DOTALL)
    part = found["defenses"]["kwta"]
    assert {a for a, c in part["attacks"].items() if _ran(c)} <= {*rows}
    body = published.split("Matrix of kwta,")[1].split("</table>")[0]
    for attack, cells in part["attacks"].items():
        row = re.search(rf'<tr data-name="{re.escape(attack)}".*?</tr>', body, re.DOTALL)
        figures = [] if row is None else re.findall(r'data-v="([\d.]+)">[\d.]+', row[0])
        expected = [
            c["robust_accuracy"] for c in cells.values() if c["robust_accuracy"] is not None
        ]
        assert [*map(float, figures)][: len(expected)] == expected
    for name, each in found["defenses"].items():
        worst = each["worst_case"][found["headline"]]
        assert f"{name} " in markup.text
        assert f"interval {100 * worst['low']:.1f}–{100 * worst['high']:.1f}" in markup.text


def _ran(cells: dict[str, Any]) -> bool:
    return any(cell["status"] != "skipped" for cell in cells.values())


def test_evidence_says_what_it_found_and_where_it_is_explained(published: str) -> None:
    """Of a failed item the law, the sentence, what was measured of how many, and the threshold."""
    found, markup = read_summary(PUBLISHED), Markup.of(published)
    failed = [i for i in found["defenses"]["kwta"]["evidence"] if i["status"] == "fail"]
    counts = [i for i in failed if i["threshold"] >= 1]
    assert counts
    for item in counts:
        assert item["title"] in markup.text
        assert " ".join(item["sentence"].split()) in markup.text
        said = f"{item['measured']:.3g} of {item['n']} measured, threshold {item['threshold']:.3g}"
        assert said in markup.text
        assert f'href="#why-{item["family"]}"' in published


def test_curves_go_through_their_figures() -> None:
    """In the units of the drawing; the attack that is lowest at the headline epsilon is first."""
    cell = {"robust_accuracy": 0.25, "low": 0.0, "high": 0.5}
    part = {
        "clean_accuracy": 1.0,
        "attacks": {"high": {"0.1": {"robust_accuracy": 0.75}}, "low": {"0.1": cell}, "none": {}},
        "worst_case": {"0.1": cell, "0.4": {"robust_accuracy": 0.0, "low": 0.0, "high": 0.25}},
    }
    chart = draw_curves(part, ["0.1", "0.4"], "0.1", ("twin", part))

    across, up = RIGHT - LEFT, BOTTOM - TOP
    expected = [(LEFT, TOP), (LEFT + across / 4, BOTTOM - up / 4), (RIGHT, BOTTOM)]
    np.testing.assert_allclose([(m.x, m.y) for m in chart.worst.marks], expected, atol=0.06)
    assert chart.worst.marks[1].high == pytest.approx(BOTTOM - up / 2, abs=0.06)
    assert [curve.name for curve in chart.attacks] == ["low", "high"]
    assert chart.worst.said == "clean 100.0 %, 25.0 % at 0.1, 0.0 % at 0.4"
    assert chart.twin is not None
    assert chart.twin.points == chart.worst.points


def test_pages_are_made_without_torch(stored: Path) -> None:
    """From a stored run with all its pictures, by a new interpreter."""
    words = [
        "import sys; from pathlib import Path; from bench.cli.runs import report",
        f"folder = Path({str(stored)!r})",
        "report([str(folder)], folder.parent, html=True)",
        "print(sorted({'torch', 'torchvision', 'matplotlib'} & sys.modules.keys()))",
    ]
    done = interpret([sys.executable, "-c", "\n".join(words)])

    assert done.stdout.splitlines()[-1] == "[]", done.stderr
    text = (stored.parent / f"{stored.name}.html").read_text(encoding="utf-8")
    assert len(Markup.of(text).all("img")) >= 6


def test_the_command_writes_pages_beside_the_runs(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Over all of them, and of one by its name; no file of the run changes."""
    before = {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}
    report(None, stored.parent, html=True)
    report([stored.name[:6]], stored.parent, html=True)

    names = ["leaderboard.md", "leaderboard.html", f"{stored.name}.html"]
    assert capsys.readouterr().out.split() == [str(stored.parent / name) for name in names]
    assert before == {path: path.read_bytes() for path in stored.rglob("*") if path.is_file()}


def test_the_same_runs_give_the_same_page() -> None:
    """In whatever order they come."""
    one, other = read_summary(SMALL), read_summary(SMALL)
    other["run"] = "f" * 16
    assert page_of(one, other) == page_of(other, one)


def test_older_and_empty_runs_have_a_page() -> None:
    """What an older version did not write is left out; without runs it says so."""
    old = read_summary(SMALL)
    for part in old["defenses"].values():
        for key in ("evidence", "verdict", "suites", "power", "marks", "comparison", "sweep"):
            part.pop(key, None)
    assert "None was gathered" in Markup.of(page_of(old)).text
    assert "No finished run" in Markup.of(page_of()).text


def test_what_others_published_and_what_draws_say_stand_beside_the_figure() -> None:
    """The best known figure in the matrix, all of them in words, and the majority of draws."""
    found = read_summary(SMALL)
    part = found["defenses"]["kwta-fast"]
    part["published"] = {
        "source": "RobustBench", "norm": "Linf", "epsilon": found["headline"], "unreliable": True,
        "clean_accuracy": 0.8, "reported": 0.7, "autoattack": None, "best_known": 0.601,
    }  # fmt: skip
    part["worst_case"][found["headline"]]["majority_accuracy"] = 0.123
    markup = Markup.of(page_of(found))

    said = "clean 80.0 %, by its authors 70.0 %, best known 60.1 % (marked as potentially"
    assert said in markup.text
    assert "right in most draws 12.3 %" in markup.text
    assert [e.text for e in markup.all("th") if e.text.startswith("published by")]
    assert "60.1" in [e.text for e in markup.all("td")]
