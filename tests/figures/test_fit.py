"""The figure of a function learnt from a few points, and the counting of jumps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.figures import activations
from bench.figures.activations import Fits, draw_fit, fit_with, jumps
from tests.figures.models import footer, panel

if TYPE_CHECKING:
    from collections.abc import Iterator

GRID = np.linspace(-1, 1, 400)


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    """Fewer points, units and steps than in the figure."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"POINTS": 8, "GRID": 200, "HIDDEN": 40, "STEPS": 60}.items():
            patch.setattr(activations, name, value)
        yield


@pytest.fixture(scope="module")
def fits(small: None) -> Fits:
    """A short training with both activations."""
    return fit_with(["relu", "kwta"], seed=3)


def test_steps_of_a_known_function_are_found_where_they_are() -> None:
    """Three jumps of different heights, on a slope."""
    places = [-0.5012, 0.1, 0.7777]
    heights = [1.0, -0.01, 0.002]

    found = jumps(
        lambda x: x + sum(h * (x > p) for h, p in zip(heights, places, strict=True)), GRID
    )

    assert np.flatnonzero(found).tolist() == [int(np.searchsorted(GRID, p)) - 1 for p in places]


@pytest.mark.parametrize("slope", [1.0, 1000.0])
def test_kinks_and_steep_slopes_are_no_jumps(slope: float) -> None:
    """Continuous functions, with kinks close to grid points and between them."""
    kinks = [GRID[100] + 1e-6, GRID[200] - 1e-6, 0.0, 0.3]

    found = jumps(
        lambda x: x + np.asarray(sum(slope * np.maximum(x - kink, 0) for kink in kinks)), GRID
    )

    assert not found.any()


def test_relu_never_jumps_and_kwta_does(fits: Fits) -> None:
    """The authors' point, trained."""
    relu, kwta = fits.jumps.sum(axis=1)

    assert relu == 0
    assert kwta >= 5


def test_what_is_drawn_is_the_fit(fits: Fits) -> None:
    """Function, fit, points and a mark for each jump."""
    figure = draw_fit(fits)

    count = int(fits.jumps[1].sum())
    axes = panel(figure, f"kwta: {count} jumps")
    function, fit, points, marks = axes.lines
    x = np.asarray(function.get_xdata())
    assert len(x) == 200
    assert np.allclose(function.get_ydata(), [math.sin(6 * value) + value for value in x])
    assert np.array_equal(np.asarray(fit.get_ydata()), fits.fits[1])
    assert np.allclose(points.get_xdata(), np.arange(8) / 3.5 - 1)
    assert len(np.asarray(marks.get_xdata())) == count
    assert panel(figure, "relu: 0 jumps")


def test_training_fits_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """After enough steps, within a tenth of what the function varies."""
    monkeypatch.setattr(activations, "STEPS", 300)
    fits = fit_with(["relu"])

    assert np.interp(fits.points, fits.grid, fits.fits[0]) == pytest.approx(
        np.sin(6 * fits.points) + fits.points, abs=0.25
    )


def test_the_seed_fixes_the_fit(fits: Fits) -> None:
    """The same seed gives the same numbers; another one others; the order does not matter."""
    again = fit_with(["kwta"], seed=3)
    other = fit_with(["kwta"], seed=4)

    assert np.array_equal(again.fits[0], fits.fits[1])
    assert not np.array_equal(other.fits[0], fits.fits[1])


def test_the_table_holds_every_series(fits: Fits) -> None:
    """Function, points and fits, the jumps beside the fits."""
    columns = fits.columns()

    assert {name: columns["series"].count(name) for name in set(columns["series"])} == {
        "function": 200, "points": 8, "relu": 200, "kwta": 200,
    }  # fmt: skip
    rows = zip(columns["series"], columns["jump"], strict=True)
    assert sum(jump or 0 for series, jump in rows if series == "kwta") == fits.jumps[1].sum()
    assert f"relu 0, kwta {fits.jumps[1].sum()}." in footer(draw_fit(fits))
