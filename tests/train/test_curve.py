"""The curve of a training, as a table and as a picture."""

from __future__ import annotations

import csv
import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.train import train
from bench.train.history import Epoch, draw
from tests.train.toys import Stripes, Toy

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: With every column, with no attack, and with no validation.
CURVES = {
    "robust": [Epoch(1, 0.1, 2.5, 0.2, 0.25, 0.0, 3.0), Epoch(2, 0.01, 0.5, 1.0, 0.75, 0.5, 3.5)],
    "clean": [Epoch(1, 0.1, 2.5, 0.2, 0.25), Epoch(2, 0.01, 0.5, 1.0, 0.75)],
    "bare": [Epoch(epoch, 0.1, 1 / epoch, 0.5) for epoch in range(1, 41)],
}


def places(line: Line2D) -> list[float]:
    """Where its points lie along the epochs."""
    return [float(x) for x in np.asarray(line.get_xdata())]


def heights(line: Line2D) -> list[float]:
    """How high its points lie."""
    return [float(y) for y in np.asarray(line.get_ydata())]


@pytest.fixture(autouse=True)
def undrawn() -> None:
    """Here pictures are drawn."""


def test_a_training_writes_its_curve(tmp_path: Path) -> None:
    """The table says what `Trained.curve` says, to six digits; the picture is a PNG."""
    trained = train(Toy(validation=15), Stripes(), out=tmp_path)
    stem = tmp_path / "curves" / trained.path.stem

    with stem.with_suffix(".csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(trained.curve) == 4
    for row, epoch in zip(rows, trained.curve, strict=True):
        assert list(row) == [field.name for field in dataclasses.fields(Epoch)]
        for name, value in dataclasses.asdict(epoch).items():
            if value is None:
                assert row[name] == ""
            else:
                assert float(row[name]) == pytest.approx(value, rel=1e-5)
    assert {row["validation_robust_accuracy"] for row in rows} == {""}
    assert stem.with_suffix(".png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("robust", ["training examples", "validation", "validation, under attack"]),
        ("clean", ["training examples", "validation"]),
        ("bare", ["training examples"]),
    ],
)
def test_the_picture_shows_all_that_was_measured(name: str, labels: list[str]) -> None:
    """The loss above, a line for each accuracy below, and every point within the axes."""
    curve = CURVES[name]
    figure: Figure = draw(curve, "toy on stripes")
    above, below = figure.axes

    assert above.get_title() == "toy on stripes"
    assert heights(above.lines[0]) == [epoch.loss for epoch in curve]
    assert [line.get_label() for line in below.lines] == labels
    assert heights(below.lines[0]) == [epoch.train_accuracy for epoch in curve]
    if name == "robust":
        assert heights(below.lines[2]) == [0.0, 0.5]
    for axes in (above, below):
        (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
        for line in axes.lines:
            assert places(line) == [epoch.epoch for epoch in curve]
            assert all(left <= x <= right for x in places(line))
            assert all(bottom <= y <= top for y in heights(line))


def test_the_score_is_robust_accuracy_where_there_is_an_attack() -> None:
    """Otherwise the clean one, otherwise none."""
    assert [curve[0].score for curve in CURVES.values()] == [0.0, 0.25, None]


def test_the_data_may_be_called_anything() -> None:
    """Their folder's name is in the title; two dollars in it are no formula, and no error."""
    figure = draw([Epoch(1, 0.1, 2.0, 0.5)], r"relu on a$\frac$")
    figure.draw_without_rendering()
    assert figure.axes[0].get_title() == r"relu on a$\frac$"
