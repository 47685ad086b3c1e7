"""The regression check notices a change in either direction, and only beyond its tolerance."""

from __future__ import annotations

import copy
import json

import pytest

from tests.regression import BASELINES, DEFENSES, TOLERANCE, differences


@pytest.fixture
def baseline() -> dict:  # type: ignore[type-arg]
    """The committed one of kwta."""
    content = json.loads((BASELINES / "kwta.json").read_text())
    assert isinstance(content, dict)
    return content


def test_every_committed_defense_has_a_baseline() -> None:
    """Four files, each of its own defense."""
    for defense in DEFENSES:
        content = json.loads((BASELINES / f"{defense}.json").read_text())
        assert content["defense"] == defense
        assert set(content["robust"]) > {"clean", "worst case", "apgd-ce"}


@pytest.mark.parametrize("change", [-TOLERANCE - 1, TOLERANCE + 1])
def test_a_cell_that_leaves_its_tolerance_is_named(baseline: dict, change: int) -> None:  # type: ignore[type-arg]
    """Weaker and stronger attacks alike."""
    now = copy.deepcopy(baseline)
    now["robust"]["apgd-ce"]["0.1"] += change
    (line,) = differences(baseline, now)
    assert line.startswith("kwta × apgd-ce @ 0.1: ")


@pytest.mark.parametrize("change", [-TOLERANCE, 0, TOLERANCE])
def test_a_cell_within_its_tolerance_passes(baseline: dict, change: int) -> None:  # type: ignore[type-arg]
    """Two examples either way."""
    now = copy.deepcopy(baseline)
    now["robust"]["apgd-ce"]["0.1"] += change
    assert differences(baseline, now) == []


def test_a_missing_cell_and_other_weights_are_named(baseline: dict) -> None:  # type: ignore[type-arg]
    """A cell that failed has no figure; a baseline of other weights is none."""
    now = copy.deepcopy(baseline)
    now["robust"]["apgd-ce"]["0.1"] = None
    now["weights_digest"] = "other"
    assert len(differences(baseline, now)) == 2
