"""Stopping at a number of passes: where, that it is said, and that a larger one continues."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
import torch

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import UsageError
from bench.run import run
from bench.run.config import RunConfig
from bench.run.forecast import REPEATS, forecast
from bench.run.prepare import prepare
from bench.run.verification import verify_run
from tests.run.test_run import figures

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = RunConfig(
    defenses=("relu-at",),
    attacks="fgsm,pgd[steps=10],apgd-ce",
    n=24,
    shard_size=6,
    epsilons=("0.05", "0.1"),
    examine=False,
    workers=0,
)
#: Room for the clean predictions, both epsilons of FGSM, and some shards of PGD.
LIMIT = 700


def spent(summary: dict[str, Any]) -> int:
    """All passes of a run."""
    costs = [part["cost"] for part in summary["defenses"].values()]
    return sum(cost["forwards"] + cost["backwards"] for cost in costs)


def test_a_run_stops_within_its_budget_and_says_what_is_missing(tmp_path: Path) -> None:
    """The cheapest cells are there, the dear ones incomplete, the worst case marked so."""
    result = run(prepare(dataclasses.replace(CONFIG, budget=LIMIT, out=tmp_path)))
    defense = result.summary["defenses"]["relu-at"]
    assert spent(result.summary) <= LIMIT
    assert defense["attacks"]["fgsm"]["0.1"]["status"] == "ok"
    cell = defense["attacks"]["apgd-ce"]["0.1"]
    assert cell["status"] == "incomplete"
    assert f"--budget {LIMIT}" in cell["reason"]
    assert cell["robust_accuracy"] is None
    assert not defense["worst_case"]["0.1"]["complete"]
    assert result.summary["limit"] == LIMIT
    assert result.failed
    assert "did not finish" in result.to_markdown()


@pytest.mark.whole
def test_a_larger_budget_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    """What fitted into the first is not computed again."""
    stopped = dataclasses.replace(CONFIG, budget=LIMIT, out=tmp_path / "a")
    run(prepare(stopped))
    before = sorted((tmp_path / "a").rglob("*.parquet"))
    assert before
    times = [path.stat().st_mtime_ns for path in before]
    whole = run(prepare(dataclasses.replace(stopped, budget=None)))
    assert [path.stat().st_mtime_ns for path in before] == times
    alone = run(prepare(dataclasses.replace(CONFIG, out=tmp_path / "b")))
    assert figures(whole.summary) == figures(alone.summary)
    assert not whole.failed


@pytest.mark.parametrize("limit", [1, 150, LIMIT])
def test_a_smaller_budget_takes_nothing_away(limit: int, tmp_path: Path) -> None:
    """What was finished has its figures, and what nobody came to is told as before."""
    config = dataclasses.replace(CONFIG, attacks="fgsm,pgd[steps=10]", out=tmp_path)
    whole = run(prepare(config))
    less = run(prepare(dataclasses.replace(config, budget=limit)))
    assert less.summary["limit"] == limit
    assert figures({**less.summary, "limit": None}) == figures(whole.summary)
    assert not less.failed
    assert less.folder is not None
    assert verify_run(less.folder, device="cpu").faults == []
    more = run(prepare(dataclasses.replace(config, attacks="apgd-ce", budget=limit)))
    assert more.failed
    rows = [result.summary["defenses"]["relu-at"]["attacks"] for result in (whole, more)]
    assert rows[1].items() >= rows[0].items()


@pytest.mark.whole
def test_it_stops_at_the_same_place_on_many_workers_and_again(tmp_path: Path) -> None:
    """Law 4: what fits follows from the plan and the outcomes, not from who was first."""
    config = dataclasses.replace(CONFIG, budget=LIMIT, out=tmp_path / "alone", workers=0)
    alone = figures(run(prepare(config)).summary)
    assert figures(run(prepare(config)).summary) == alone
    many = dataclasses.replace(config, out=tmp_path / "many", workers=2)
    assert figures(run(prepare(many)).summary) == alone
    assert figures(run(prepare(many)).summary) == alone


def test_a_budget_has_to_be_positive() -> None:
    """Zero passes are no run."""
    with pytest.raises(UsageError, match=r"--budget has to be at least 1 \(got 0\)"):
        prepare(dataclasses.replace(CONFIG, budget=0))


@pytest.mark.whole
def test_a_pilot_foretells_the_passes_of_the_run(tmp_path: Path) -> None:
    """Within the factor of 1.5 that the plan promises; nothing is left behind in the folder."""
    prepared = prepare(dataclasses.replace(CONFIG, n=60, shard_size=30, out=tmp_path))
    foretold = forecast(prepared)
    assert foretold.pilot == 10
    assert not list(tmp_path.iterdir())
    took = spent(run(prepared).summary)
    assert took / 1.5 <= foretold.cost.total <= took * 1.5
    assert foretold.seconds > 0
    assert foretold.batch_size is None


@pytest.mark.whole
@pytest.mark.parametrize(("given", "most", "fits"), [(None, 8, 8), (4, 4, None), (20, 10, 10)])
def test_a_pilot_knows_of_batches_and_of_memory_that_ends(
    given: int | None, most: int, fits: int | None, tmp_path: Path
) -> None:
    """A pass of a shard is timed in batches as large as asked for, halved where memory ends."""
    asked: list[int] = []

    class Hungry(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            asked.append(len(x))
            if len(x) > 10:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return x.flatten(1)[:, :10]

    small = dataclasses.replace(
        CONFIG, attacks="fgsm", n=60, shard_size=30, batch_size=given, out=tmp_path
    )
    prepared = prepare(small)
    hungry = [dataclasses.replace(each, load=Hungry) for each in prepared.contenders]
    foretold = forecast(dataclasses.replace(prepared, contenders=hungry))
    assert foretold.batch_size == fits
    assert foretold.seconds > 0
    assert max(asked[-2 * REPEATS :]) == most
