"""Forged values do not come out equal: each is found, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.api import Flag
from bench.matrix.plan import Planned
from bench.record.store import open_run
from tests.run.recomputed.runs import evaluated

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.record.outcomes import Outcomes
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


def passes(name: str, more: int) -> Callable[[Outcomes], None]:
    """One of a shard's totals, changed."""

    def forge(outcomes: Outcomes) -> None:
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
    "forwards": passes("forwards", 1),
    "backwards": passes("backwards", 7),
    "the judge's forwards": passes("judge_forwards", 1),
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
