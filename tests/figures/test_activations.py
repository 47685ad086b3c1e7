"""The figure of a vector before and after activations."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from bench.errors import ModelError, UsageError
from bench.figures.activations import VALUES as VECTOR
from bench.figures.activations import apply, draw
from bench.registry import defenses
from tests.figures.models import footer, panel

if TYPE_CHECKING:
    from collections.abc import Callable

VALUES = list(VECTOR)
NAMES = ["relu", "max-pool", "lwta", "kwta[k=3]", "kwta[gamma=0.25]", "broken-relu[height=1]"]


def pairs(values: list[float]) -> list[list[float]]:
    """Neighbours, two at a time."""
    return [values[i : i + 2] for i in range(0, len(values), 2)]


def largest(values: list[float], k: int) -> list[float]:
    """The k largest stay, all others are zero."""
    least = sorted(values)[-k]
    return [value if value >= least else 0.0 for value in values]


TRUTHS: list[Callable[[list[float]], list[float]]] = [
    lambda values: [max(value, 0.0) for value in values],
    lambda values: [max(pair) for pair in pairs(values) for _ in pair],
    lambda values: [v if v == max(pair) else 0.0 for pair in pairs(values) for v in pair],
    lambda values: largest(values, 3),
    lambda values: largest(values, int(0.25 * 12)),
    lambda values: [value if value > 0 else -1.0 for value in values],
]


def test_bars_are_the_activation_computed_by_hand() -> None:
    """Wide ones before, narrow ones after; at whole numbers from 0."""
    figure = draw(apply(NAMES))

    for name, truth in zip(NAMES, TRUTHS, strict=True):
        axes = panel(figure, defenses.create(name).name)
        before, after = axes.containers
        assert [bar.get_height() for bar in before] == VALUES
        assert [bar.get_height() for bar in after] == truth(VALUES)
        middles = [bar.get_x() + bar.get_width() / 2 for bar in after]
        assert middles == pytest.approx(range(12))


def test_the_numbers_lie_beside_it() -> None:
    """One column for the vector and one for each activation."""
    columns = apply(["relu", "kwta[k=3]"]).columns()

    assert list(columns) == ["unit", "input", "relu", "kwta[k=3]"]
    assert columns["kwta[k=3]"] == largest(VALUES, 3)


def test_the_footer_names_what_is_shown() -> None:
    """Activations, size, version."""
    figure = draw(apply(["relu", "lwta"]))

    assert re.fullmatch(r"A vector of 12 units .*: relu, lwta\. torch \d.*\.", footer(figure))


def test_a_defense_without_an_activation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says so, and what to take."""
    monkeypatch.setattr(defenses.get("relu"), "activation", None)

    with pytest.raises(UsageError, match=r"relu has no activation of its own to show; .*kwta"):
        apply(["kwta", "relu"])


def test_no_activation_is_refused() -> None:
    """Nothing to draw."""
    with pytest.raises(UsageError, match="no activation given"):
        apply([])


def test_units_that_make_no_whole_groups_are_refused() -> None:
    """By the activation itself."""
    with pytest.raises(ModelError, match="12 channels do not make whole groups of 5"):
        apply(["lwta[group=5]"])
