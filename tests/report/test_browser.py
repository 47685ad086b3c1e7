"""The HTML page in a real browser: what can be sorted, filtered, pointed at, read and printed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

from bench.record.runs import read_summary
from bench.run.page import write_page
from tests.report.conftest import SMALL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed"
)
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.whole,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="module")
def page_file(stored: Path) -> Path:
    """A page of a run with pictures, and of a published one with evidence."""
    summaries = {folder: read_summary(folder) for folder in (stored, SMALL)}
    return write_page(summaries, stored.parent / "browser.html")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for all of these tests."""
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page; at the end nothing was said on the console, and nothing asked for."""
    said: list[str] = []
    opened: list[Any] = []

    def visit(width: int = 1280, scheme: str = "light", place: str = "") -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(page)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url))
        page.goto(page_file.as_uri() + place)
        return page

    yield visit
    for page in opened:
        page.close()
    asked = [text for text in said if not text.startswith("data:")]
    assert {text.partition("#")[0] for text in asked} == {page_file.as_uri()}


def matrix(page: Any) -> Any:
    """The matrix of the published run's k-WTA."""
    return page.get_by_role("region", name="Matrix of kwta-fast").locator("table")


def rows(table: Any) -> list[str]:
    """The names of the attacks that are seen, from above."""
    names = table.locator("tbody:last-of-type tr:not([hidden])")
    return [str(n) for n in names.evaluate_all("rows => rows.map(row => row.dataset.name)")]


def test_nothing_can_be_loaded_from_outside(browser: Any, page_file: Path) -> None:
    """A request, a style and a script that somebody smuggles in are refused by the browser."""
    page = browser.new_page()
    page.goto(page_file.as_uri())
    refused = page.evaluate(
        """async () => {
            const found = [];
            document.addEventListener("securitypolicyviolation",
                event => found.push(event.effectiveDirective));
            await fetch("https://localhost:9/").catch(() => 0);
            const image = new Image(); image.src = "https://localhost:9/x.png";
            const script = document.createElement("script");
            script.textContent = "window.smuggled = 1"; document.body.append(script);
            document.body.setAttribute("style", "color: red");
            await new Promise(done => setTimeout(done, 100));
            return [found.sort(), window.smuggled === undefined];
        }"""
    )
    page.close()

    assert refused == [["connect-src", "img-src", "script-src-elem", "style-src-attr"], True]


def test_a_column_sorts_by_its_figures_and_then_the_other_way(visit: Callable[..., Any]) -> None:
    """By mouse and by keyboard; the worst case stays above the rows."""
    page = visit()
    table = matrix(page)
    cells = read_summary(SMALL)["defenses"]["kwta-fast"]["attacks"]
    head = table.get_by_role("button", name="ε = 0.3", exact=True)

    def figures() -> list[float]:
        named = [cells[name].get("0.3", {}).get("robust_accuracy") for name in rows(table)]
        return [figure for figure in named if figure is not None]

    head.click()
    assert figures() == sorted(figures())
    assert head.locator("..").get_attribute("aria-sort") == "ascending"
    head.focus()
    page.keyboard.press("Enter")
    assert figures() == sorted(figures(), reverse=True)
    assert len(figures()) > 10
    assert head.locator("..").get_attribute("aria-sort") == "descending"
    assert table.locator("tbody tr").first.inner_text().startswith("worst case")
    table.get_by_role("button", name="Attack").click()
    assert rows(table) == sorted(rows(table))


def test_a_filter_leaves_what_it_names_and_counts_it(visit: Callable[..., Any]) -> None:
    """By a part of the name, and by what the examination says of the attack."""
    page = visit()
    table = matrix(page)
    every = rows(table)
    form = page.locator(f"form[data-table='{table.get_attribute('id')}']")
    form.get_by_label("Attack").fill("APGD")
    assert rows(table) == [name for name in every if "apgd" in name]
    assert form.locator("output").inner_text() == f"{len(rows(table))} of {len(every)}"
    form.get_by_label("Attack").fill("")
    form.get_by_label("Show").select_option("misled")
    marks = read_summary(SMALL)["defenses"]["kwta-fast"]["marks"]
    assert {*rows(table)} == {name for name in every if marks[name] == "misled"}


def test_each_line_of_a_curve_says_its_figures(visit: Callable[..., Any]) -> None:
    """Under the mouse, and by the arrow keys from the first attack to the worst case."""
    page = visit()
    chart = page.locator("figure.curve").last
    lines, readout = chart.locator("g.line"), chart.locator("output")
    lines.first.focus()
    assert readout.inner_text() == lines.first.get_attribute("aria-label")
    page.keyboard.press("ArrowDown")
    assert readout.inner_text() == lines.nth(1).get_attribute("aria-label")
    page.keyboard.press("End")
    assert readout.inner_text().startswith("worst case: clean ")
    assert chart.locator("g.line[tabindex='0']").count() == 1
    lines.nth(2).locator(".hit").dispatch_event("pointerenter", {"bubbles": False})
    lines.nth(2).dispatch_event("pointerenter", {"bubbles": False})
    assert readout.inner_text() == lines.nth(2).get_attribute("aria-label")


def test_a_gallery_orders_filters_and_shows_the_rest(visit: Callable[..., Any]) -> None:
    """The first twelve of the closest or hardest; by attack, and by what lies within an epsilon."""
    page = visit()
    gallery, form = page.locator("ul.gallery"), page.locator("form[data-gallery]")
    seen = gallery.locator("li:not([hidden])")

    def distances() -> list[float]:
        return [float(d) for d in seen.evaluate_all("all => all.map(e => e.dataset.distance)")]

    assert distances() == sorted(distances())
    assert seen.count() == 12
    page.get_by_role("button", name="Show all").click()
    every = distances()
    assert len(every) > 12
    form.get_by_label("Order").select_option("hardest")
    assert [round(d, 6) for d in distances()] == sorted((round(d, 6) for d in every), reverse=True)
    form.get_by_label("Within ε").select_option("0.1")
    assert {*distances()} == {d for d in every if d <= 0.1 + 1e-6}
    form.get_by_label("Found by").select_option("fgsm")
    names = {*seen.evaluate_all("all => all.map(e => e.dataset.attack)")}
    assert names == {"fgsm"}


def test_a_link_to_a_hidden_example_shows_it(visit: Callable[..., Any]) -> None:
    """Though only the first twelve are shown at the beginning."""
    page = visit()
    hidden = page.locator("ul.gallery li[hidden]").first
    place = hidden.get_attribute("id")
    page.evaluate(f"location.hash = '#{place}'")
    page.locator(f"#{place}:not([hidden])").wait_for(timeout=2000)


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_it_is_accessible_and_fits(visit: Callable[..., Any], width: int, scheme: str) -> None:
    """No finding of axe-core with all opened (names, contrast, landmarks, order), no overflow."""
    page = visit(width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = axe.Axe().run(page).response["violations"]

    assert [(each["id"], each["nodes"][0]["html"]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_axe_would_find_something(visit: Callable[..., Any]) -> None:
    """The check above can fail: without a name, an alternative text or contrast."""
    page = visit()
    page.evaluate(
        """() => {
            document.querySelector(".gallery img").removeAttribute("alt");
            document.querySelector("th button").textContent = "";
            document.documentElement.style.setProperty("--quiet", "#bbb");
        }"""
    )
    parts = {"include": [["header"], [".gallery"], [".leaderboard thead"]]}
    found = {each["id"] for each in axe.Axe().run(page, parts).response["violations"]}
    assert found >= {"image-alt", "button-name", "color-contrast"}


def test_the_first_key_leads_past_the_head(visit: Callable[..., Any]) -> None:
    """A reader without a mouse gets to the results at once."""
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the results"
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#main"


def test_on_paper_everything_is_open_and_no_tool_is_left(visit: Callable[..., Any]) -> None:
    """What is closed on a screen is printed, and what only a screen can use is not."""
    page = visit()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    assert not page.locator("form.tools").first.is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details:not([open])").count() > 5
