"""What cannot come out equal: computed elsewhere, by what is not here, or by no seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import tests.plugins  # noqa: F401 - registers the attacks
from bench import registry
from bench.record.provenance import Surroundings
from bench.record.schema import CLEAN
from bench.record.store import open_run
from tests.run.recomputed.runs import EPSILONS, Noise, OwnNoise, evaluated
from tests.run.test_imports import N, judged, shifted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from bench.run.recompute import Recomputed


def test_a_cell_that_cannot_be_computed_again_is_named_and_counted(
    finished: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an attack in another version: a forger may have chosen it, and so it counts as missed."""
    monkeypatch.setattr(registry.attacks.get("test-random"), "version", 99)
    found = again(finished)
    names = {item.cell for item in found.left_out}
    assert names == {f"model × test-random @ {epsilon}" for epsilon in EPSILONS}
    assert all("another version of its attack" in item.reason for item in found.left_out)
    assert found.unproven == 12
    assert found.drawn == found.stored - 12
    assert found.found == 1 + 12
    assert not found.whole


def test_an_attack_that_is_not_here_is_named(
    forged: Path, again: Callable[..., Recomputed]
) -> None:
    """With what the registry says."""
    store, record = open_run(forged)
    cells = [
        cell.model_copy(update={"attack": cell.attack.replace("test-best", "gone")})
        for cell in record.cells
    ]
    for cell in record.cells:
        for number, outcomes in enumerate(store.shards(cell.key)):
            assert outcomes.place is not None
            if outcomes.place.attack == "test-best":
                outcomes.place = outcomes.place._replace(attack="gone")
                store.put(cell.key, number, outcomes)
    store.write_record(record.model_copy(update={"cells": cells}))
    left = again(forged).left_out
    assert {item.cell for item in left} == {f"model × gone @ {e}" for e in EPSILONS}
    assert all("its attack is not here: unknown attack 'gone'" in item.reason for item in left)


def test_what_was_computed_elsewhere_agrees_within_margins(
    finished: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same processor, called otherwise: what is equal to the last digit counts as equal."""
    elsewhere(monkeypatch)
    found = again(finished)
    assert found.differences == ()
    assert found.whole


def elsewhere(patch: pytest.MonkeyPatch) -> None:
    """This machine is another than that of the run, of the same name."""
    here = Surroundings.of("cpu").model_copy(update={"instructions": "others"})
    patch.setattr("bench.run.recompute.Surroundings.of", lambda *_: here)


def moved(folder: Path, attack: str, change: Callable[[Any, int], None]) -> None:
    """Change every broken outcome of an attack; gets the frame and the row."""
    store, record = open_run(folder)
    for cell in [cell for cell in record.cells if cell.attack == attack]:
        for number, outcomes in enumerate(store.shards(cell.key)):
            attacked = attack == CLEAN or outcomes.frame["attacked"] & outcomes.frame["broken"]
            for row in np.flatnonzero(np.broadcast_to(attacked, len(outcomes.frame))):
                change(outcomes.frame, int(row))
            outcomes.save(store.shard_path(cell.key, number))


def test_rounding_is_no_fault_elsewhere_and_one_direction_is(
    forged: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances in the last digits; then broken examples that are all unbroken as stored."""
    elsewhere(monkeypatch)

    def rounded(frame: Any, row: int) -> None:
        frame.loc[row, ["distance_linf", "margin"]] *= 1 + 1e-6

    def better(frame: Any, row: int) -> None:
        frame.loc[row, "broken"] = False

    moved(forged, "test-minimum", rounded)
    found = again(forged)
    assert found.differences == ()
    assert found.exact < found.computed
    assert "within margins and chance" in found.text
    moved(forged, "test-minimum", better)
    (difference,) = again(forged).differences
    assert difference.startswith("model × test-minimum: broken is higher than computed again 0")


def test_predictions_of_a_deterministic_model_are_the_same_everywhere(
    forged: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unperturbed example whose margin is another."""
    elsewhere(monkeypatch)
    moved(forged, CLEAN, lambda frame, row: frame.__setitem__("margin", frame["margin"] + 0.01))
    assert any("model × clean @ 0" in text for text in again(forged).differences)


def test_randomness_that_no_seed_reaches_is_no_forgery(
    tmp_path: Path, again: Callable[..., Recomputed]
) -> None:
    """An honest run of such a model agrees by its draws, and the text says how it was compared."""
    folder = evaluated(tmp_path, OwnNoise(), attacks="test-best", epsilons=["0.02"])
    found = again(folder, model="OwnNoise")
    assert found.differences == ()
    assert found.unsteady == found.computed == found.stored
    assert "do not come out the same twice" in found.text
    assert not found.whole


def test_randomness_of_the_run_s_generators_comes_out_the_same(
    tmp_path: Path, again: Callable[..., Recomputed]
) -> None:
    """Every draw of every example, of a model that draws from the generators that a run seeds."""
    assert again(evaluated(tmp_path, Noise(), attacks="test-best"), model="Noise").whole


def test_a_file_from_elsewhere_is_not_here(
    tmp_path: Path, again: Callable[..., Recomputed], factories: Path
) -> None:
    """The adversarial examples that somebody else made: named, and never said to be equal."""
    np.savez(tmp_path / "far.npz", adversarial=shifted(torch.full((N,), 0.2)))
    result = judged(tmp_path / "far.npz", tmp_path / "runs")
    assert result.folder is not None
    found = again(result.folder)
    assert {item.cell.partition(" @ ")[0] for item in found.left_out} == {"model × external:mine"}
    assert all("its file is not here" in item.reason for item in found.left_out)
    assert found.differences == ()
