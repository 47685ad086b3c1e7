"""The figure of robust accuracy against epsilon."""

from __future__ import annotations

import copy
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import StoreError, UnknownNameError, UsageError
from bench.figures.curve import draw, trace
from bench.record.runs import read_summary
from tests.figures.models import band, footer
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

EPSILONS = ["0.01", "0.02", "1/25", "0.3"]


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """Of a run of `Sum`, whose worst case is known."""
    examples = linear_examples()
    return attack_only(
        Sum(), examples.inputs, examples.labels,
        epsilons=EPSILONS, attacks="test-best,test-small-only", name="sum",
    ).summary  # fmt: skip


def axes_of(*summaries: dict[str, Any], attacks: list[str] | None = None) -> Axes:
    """The drawn axes."""
    return draw(trace(summaries, attacks or [])).axes[0]


def points(line: Line2D) -> tuple[list[float], list[float]]:
    """Where a line goes."""
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def variant(summary: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A summary that differs in some top-level keys."""
    return {**copy.deepcopy(summary), **changes}


def wilson_ends(p: float, n: int) -> tuple[float, float]:
    """The two proportions from which p is 1.96 standard errors away: roots of a quadratic."""
    z2 = 1.959963984540054**2
    roots = np.roots([1 + z2 / n, -2 * p - z2 / n, p * p]).real
    return float(min(roots)), float(max(roots))


def test_the_solid_line_is_the_share_of_examples_beyond_each_epsilon(
    summary: dict[str, Any],
) -> None:
    """From clean accuracy, here 1, by the closed form of the linear model; it never rises."""
    thresholds = linf_thresholds(linear_examples()).numpy()
    (line,) = axes_of(summary).lines

    distances = [0.0, 0.01, 0.02, 0.04, 0.3]
    assert points(line)[0] == distances
    assert points(line)[1] == [float((thresholds > e).mean()) for e in distances]
    assert (np.diff(points(line)[1]) <= 0).all()
    assert line.get_linestyle() == "-"


def test_the_band_is_the_wilson_interval(summary: dict[str, Any]) -> None:
    """Also at epsilon 0 and where nothing is left."""
    axes = axes_of(summary)
    low, high = band(axes, 0)

    for x, y in zip(*points(axes.lines[0]), strict=True):
        expected = wilson_ends(y, 20)
        assert low[x] == pytest.approx(expected[0], abs=1e-6)
        assert high[x] == pytest.approx(expected[1], abs=1e-6)


def test_epsilons_stand_at_the_axis_as_they_were_written(summary: dict[str, Any]) -> None:
    """And not as decimals."""
    axes = axes_of(summary)

    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", *EPSILONS]
    assert axes.get_xlabel() == "Linf epsilon"


def test_chosen_attacks_are_dashed_rows(summary: dict[str, Any]) -> None:
    """The attack's own figures, in the colour of its defense; this one gives up at 0.03."""
    solid, dashed = axes_of(summary, attacks=["test-small-only"]).lines

    rows = summary["defenses"]["sum"]["attacks"]["test-small-only"]
    assert points(dashed)[1] == [1.0, *(rows[e]["robust_accuracy"] for e in EPSILONS)]
    assert points(dashed)[1][-1] == 1.0
    assert dashed.get_linestyle() == "--"
    assert dashed.get_color() == solid.get_color()


def test_the_legend_has_the_headline_the_count_and_the_verdict(summary: dict[str, Any]) -> None:
    """Of the worst case; a row has no verdict."""
    judged = variant(summary)
    judged["defenses"]["sum"]["worst_case"]["0.3"]["verdict"] = "suspect"
    figure = draw(trace([judged], ["test-best"]))

    (legend,) = figure.legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "sum, worst case: 0.0 (0.0–16.1) % @ 0.3, n = 20, suspect",
        "sum, test-best: 0.0 (0.0–16.1) % @ 0.3, n = 20",
    ]
    judged["defenses"]["sum"]["worst_case"]["0.3"] |= {"verdict": None, "complete": False}
    assert trace([judged]).lines[0].note.endswith("n = 20, no verdict, incomplete")


def test_what_has_no_figure_is_left_out(summary: dict[str, Any]) -> None:
    """A failed cell is a missing point, an attack without cells no line."""
    failed = variant(summary)
    rows = failed["defenses"]["sum"]["attacks"]
    rows["test-best"]["0.02"] |= {"robust_accuracy": None, "low": None, "high": None}
    for cell in rows["test-small-only"].values():
        cell |= {"robust_accuracy": None, "low": None, "high": None}

    worst, row = trace([failed], ["test-best", "test-small-only"]).lines

    assert worst.epsilons == ("0", *EPSILONS)
    assert row.epsilons == ("0", "0.01", "1/25", "0.3")


def test_runs_of_the_same_defense_are_told_apart(summary: dict[str, Any]) -> None:
    """By the run's name and by colour."""
    figure = draw(trace([summary, variant(summary, run="feedfacefeedface")]))
    first, second = figure.axes[0].lines

    assert str(second.get_label()).startswith("sum [feedface], worst case")
    assert str(first.get_label()).startswith(f"sum [{summary['run'][:8]}], worst case")
    assert first.get_color() != second.get_color()


@pytest.mark.parametrize(
    ("key", "value"),
    [("norm", "L2"), ("data_digest", "other"), ("dataset", "mnist"), ("judging", {})],
)
def test_runs_that_cannot_be_compared_are_refused(
    summary: dict[str, Any], key: str, value: object
) -> None:
    """The error says in what they differ."""
    with pytest.raises(UsageError, match=f"cannot be compared: {key} is "):
        trace([summary, variant(summary, run="b", **{key: value})])


def test_an_unknown_attack_is_refused(summary: dict[str, Any]) -> None:
    """With what it may have meant."""
    with pytest.raises(UnknownNameError, match="'test-bests'; did you mean 'test-best'"):
        trace([summary], ["test-bests"])


def test_a_run_without_figures_is_refused(summary: dict[str, Any]) -> None:
    """Nothing is drawn."""
    empty = variant(summary)
    empty["defenses"]["sum"]["clean_accuracy"] = None

    with pytest.raises(UsageError, match="no finished figure"):
        trace([empty])


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    """No summary, another file, another schema."""
    with pytest.raises(StoreError, match=r"no summary\.json in .*; name the folder"):
        read_summary(tmp_path)
    path = tmp_path / "summary.json"
    for content, message in (
        ("[]", "is not the summary of a run"),
        ('{"schema": 99, "defenses": {}}', "schema version 99; this Winnow reads 1"),
    ):
        path.write_text(content)
        with pytest.raises(StoreError, match=message):
            read_summary(tmp_path)


def test_the_table_and_the_footer_say_where_it_is_from(
    summary: dict[str, Any], tmp_path: Path
) -> None:
    """Read back from a file: run, weights, data, seed, torch, and how many attacks ran."""
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    data = trace([read_summary(tmp_path)], ["test-best"])

    columns = data.columns()
    assert columns["attack"] == ["worst case"] * 5 + ["test-best"] * 5
    assert columns["epsilon"] == ["0", *EPSILONS] * 2
    assert all(low <= a <= high for low, a, high in zip(
        columns["low"], columns["accuracy"], columns["high"], strict=True))  # fmt: skip
    assert not any(map(math.isnan, columns["accuracy"]))
    digest = summary["defenses"]["sum"]["weights_digest"][:8]
    text = footer(draw(data))
    assert f"sum ({digest}, 2 attacks); " in text
    assert f"n = 20; runs {summary['run'][:8]} (seed 0, torch 2." in text


@pytest.mark.parametrize("name", [r"$\frac$", "_own"])
def test_a_model_may_be_called_anything(summary: dict[str, Any], name: str) -> None:
    """No formula with a mistake in it, and no line that a legend leaves out."""
    renamed = variant(summary, defenses={name: summary["defenses"]["sum"]})
    figure = draw(trace([renamed]))
    figure.draw_without_rendering()
    (text,) = figure.legends[0].get_texts()
    assert name.strip("$_\\") in text.get_text()
