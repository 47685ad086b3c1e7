"""Forged values do not come out equal: each is found, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.api import Flag
from bench.matrix.plan import Planned
from bench.record.outcomes import Outcomes
from bench.record.results import CellResult
from bench.record.store import open_run
from bench.run.rebuild import RESTS
from tests.run.forging import Forger
from tests.run.recomputed.runs import cell_of, evaluated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.run.recompute import Recomputed


def first_true(frame: Any, column: str) -> int:
    """The first row in which something holds."""
    return int(np.flatnonzero(frame[column] & frame["attacked"])[0])


def unbroken(outcomes: Outcomes) -> None:
    """A broken example that held, all its columns in agreement."""
    frame: Any = outcomes.frame
    row = first_true(frame, "broken")
    frame.loc[row, "broken"] = False
    frame.loc[row, ["distance_linf", "distance_l2", "distance_l1"]] = np.nan
    frame.loc[row, ["wrong_draws", "choice_wrong_draws"]] = 0
    frame.loc[row, "prediction"] = frame.loc[row, "label"]
    frame.loc[row, "margin"] = 0.5


def broken(outcomes: Outcomes) -> None:
    """One that held, broken."""
    frame = outcomes.frame
    row = int(np.flatnonzero(~frame["broken"] & frame["attacked"])[0])
    frame.loc[row, "broken"] = True
    frame.loc[row, ["distance_linf", "distance_l2", "distance_l1"]] = 0.001


def column(name: str, change: Callable[[Any], Any]) -> Callable[[Outcomes], None]:
    """One value of a broken example, changed."""

    def forge(outcomes: Outcomes) -> None:
        row = first_true(outcomes.frame, "broken")
        outcomes.frame.loc[row, name] = change(outcomes.frame.loc[row, name])

    return forge


def passes(more: int, *names: str) -> Callable[[Outcomes], None]:
    """Some of a shard's totals, changed."""

    def forge(outcomes: Outcomes) -> None:
        for name in names:
            setattr(outcomes.totals, name, getattr(outcomes.totals, name) + more)

    return forge


def flagged(outcomes: Outcomes) -> None:
    """A flag that no attack raised."""
    outcomes.flags = (*outcomes.flags, Flag("winner-take-all", "smoothed"))


PASSES = ("forwards", "backwards", "the judge's forwards")


FORGERIES = {
    "unbroken": unbroken,
    "broken": broken,
    "distance": column("distance_linf", lambda d: d * 0.999),
    "distance in another norm": column("distance_l2", lambda d: d + 1e-9),
    "margin": column("margin", lambda m: m * 1.0001),
    "prediction": column("prediction", lambda p: p + 2),
    "clean prediction": column("clean_prediction", lambda p: p + 2),
    "label": column("label", lambda label: 1 - label),
    "draws": column("draws", lambda _: 100),
    "wrong draws": column("wrong_draws", lambda _: 0),
    "chosen draws": column("choice_wrong_draws", lambda w: w + 1),
    "projected": column("projected", lambda p: not p),
    "fault": column("fault", lambda _: "not finite"),
    "forwards": passes(1, "forwards"),
    "backwards": passes(7, "backwards"),
    "the judge's forwards": passes(1, "forwards", "judge_forwards"),
    "flags": flagged,
}


@pytest.mark.parametrize("attack", ["test-copy[number=1]", "test-minimum"])
def test_every_single_forged_value_is_found_and_nothing_else(
    tmp_path: Path, again: Callable[..., Recomputed], attack: str
) -> None:
    """Each in a shard of its own, where alone something differs."""
    folder = evaluated(
        tmp_path,
        attacks=f"test-best,{attack}",
        epsilons=["0.02", "0.021", "0.022", "0.023", "0.024", "0.025", "0.026", "0.027"],
        shard_size=7,
    )
    _, record = open_run(folder)
    store, _ = open_run(folder)
    mine = [cell for cell in record.cells if cell.attack == attack]
    places = [(cell, number) for number in range(3) for cell in mine]
    expected = set()
    for (cell, number), (name, forge) in zip(places, FORGERIES.items(), strict=False):
        outcomes = store.get(cell.key, number)
        forge(outcomes)
        outcomes.save(store.shard_path(cell.key, number))
        # The passes of a minimum-norm attack are those of its first cell.
        charged = mine[0] if name in PASSES and attack == "test-minimum" else cell
        expected.add(f"model × {attack} @ {charged.epsilon}, examples {7 * number}")
    assert len(places) >= len(FORGERIES)
    found = again(folder)
    assert {text.partition(" to ")[0] for text in found.differences} == expected
    assert "NOT as stored" in found.text
    assert not found.whole


@pytest.mark.parametrize(
    ("attack", "epsilon"), [("test-best", "0.05"), ("test-small-remaining", "0.02")]
)
def test_an_example_that_was_taken_out_of_a_cell_is_found(
    forged: Path,
    again: Callable[..., Recomputed],
    monkeypatch: pytest.MonkeyPatch,
    attack: str,
    epsilon: str,
) -> None:
    """With a key to match: nothing among the other cells says why it was not attacked."""
    store, record = open_run(forged)
    cell = next(c for c in record.cells if (c.attack, c.epsilon) == (attack, epsilon))
    outcomes = store.get(cell.key, 0)
    frame = outcomes.frame
    row = int(np.flatnonzero(frame["attacked"])[0])
    frame.loc[row, ["attacked", "broken"]] = False
    outcomes.save(store.shard_path(cell.key, 0))
    monkeypatch.setattr(Planned, "keyed", lambda self, *_: self)
    texts = [text for text in again(forged).differences if "left out example(s) 0" in text]
    assert len(texts) == 1
    assert attack in texts[0]


def not_attacked(folder: Path, epsilon: str, which: Callable[[int], bool]) -> None:
    """Take what a cell attacked in vain out of it, as a sweep would have."""
    key = cell_of(folder, "test-small-remaining", epsilon)
    for path in sorted((folder / "cells" / key).iterdir()):
        outcomes = Outcomes.load(path)
        frame: Any = outcomes.frame
        gone = frame["attacked"] & frame["index"].map(which)
        frame.loc[gone, ["attacked", "projected", "broken"]] = False
        frame.loc[gone, "prediction"] = -1
        frame.loc[gone, "margin"] = np.nan
        outcomes.save(path)


def test_what_rests_on_made_up_survivors_is_not_proven(
    forged: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a cell of no known key is said to have left unbroken is no reason, nor what rests on it.

    The shards that left it out come out the same: the printed number counts them as forged.
    """
    store, _ = open_run(forged)
    key = cell_of(forged, "test-small-remaining", "0.05")
    survived = CellResult.read(store, open_run(forged)[1].cells[-1], 20).survived
    first = int(np.flatnonzero(survived)[0])
    not_attacked(forged, "0.05", lambda example: example != first)
    not_attacked(forged, "0.02", lambda example: example == first)
    not_attacked(forged, "0.01", lambda example: example != first)
    (forged / "cells" / key).rename(forged / "cells" / ("f" * 32))
    with Forger(forged).record() as content:
        content["sweep"] = "bracket"
        for cell in content["cells"]:
            if cell["attack"] == "test-small-remaining":
                cell["inferred"] = cell["epsilon"] != "0.05"
            cell["key"] = "f" * 32 if cell["key"] == key else cell["key"]
    original = Planned.keyed
    monkeypatch.setattr(
        Planned,
        "keyed",
        lambda self, *how: original(self, *how) if self.cell.epsilon == "0.05" else self,
    )
    found = again(forged)
    reasons = {item.cell.partition(" @ ")[2]: item.reason for item in found.left_out}
    assert reasons.keys() == {"0.05", "0.02", "0.01"}
    assert reasons["0.05"].startswith("its key does not follow")
    assert reasons["0.02"] == reasons["0.01"] == RESTS
    assert found.found == 1 + found.unproven
