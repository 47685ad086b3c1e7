"""Shards are filled up with examples that are attacked, and what others left starts in few."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.matrix.execute import InProcess
from bench.matrix.plan import Setting
from bench.record.store import RunStore
from bench.run.config import RunConfig, usual_shard_size
from bench.run.prepare import prepare
from tests.matrix.test_plan import SETTING
from tests.matrix.test_sweeps import EPSILONS, THRESHOLDS, sweep
from tests.plugins import Best
from tests.run.test_run import figures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.api import Problem, Proposal
    from bench.matrix.work import TaskResult
    from bench.record.schema import Sweep

FIXED = Setting.shards
"""How shards were once cut on a CPU, whatever was attacked."""


@pytest.mark.parametrize(
    ("attacked", "expected"),
    [
        (range(110), [(0, 50), (50, 100), (100, 110)]),
        (range(0, 110, 2), [(0, 100), (100, 110)]),
        ([7], [(0, 110)]),
        ([], [(0, 110)]),
    ],
)
def test_a_shard_ends_where_it_is_full(
    attacked: range | list[int], expected: list[tuple[int, int]]
) -> None:
    """Every shard but the last holds exactly 50 attacked examples; together they cover all."""
    assert SETTING.shards(attacked) == expected
    held = [sum(start <= i < stop for i in attacked) for start, stop in expected]
    assert all(count == 50 for count in held[:-1])
    assert sum(held) == len(attacked)


def test_a_gpu_gets_larger_shards_than_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 small images leave a GPU idle; what the user says counts on either."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    config = RunConfig(defenses=("relu",), attacks="fgsm", n=20, twins=False)

    def size(**change: Any) -> int:
        return prepare(dataclasses.replace(config, **change)).setting.shard_size

    assert size(device="cpu") == 100
    assert size(device="cuda") > size(device="cpu")
    assert size(device="cpu", shard_size=7) == size(device="cuda", shard_size=7) == 7


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((1, 8, 8), 100), ((1, 16, 16), 100), ((1, 1, 257), 50), ((1, 28, 28), 50), ((3, 32, 32), 50)],
)
def test_small_images_come_in_larger_shards(shape: tuple[int, int, int], expected: int) -> None:
    """Of small ones a call costs more than their arithmetic; of larger ones it is memory."""
    assert usual_shard_size("cpu", shape) == expected
    assert usual_shard_size("cuda", shape) > expected


@pytest.mark.parametrize("how", ["bracket", "each"])
@pytest.mark.usefixtures("gradients_alone")
def test_what_is_left_is_attacked_in_full_batches(
    monkeypatch: pytest.MonkeyPatch, how: Sweep
) -> None:
    """The outcomes are those of the closed form, in as few batches as hold what was attacked."""
    sizes: dict[float, list[int]] = {}

    def noted(self: Best, problem: Problem) -> Proposal:
        assert problem.epsilon is not None
        sizes.setdefault(problem.epsilon, []).append(len(problem.labels))
        return Best.run(self, problem)

    monkeypatch.setattr("tests.plugins.Remaining.run", noted)
    result = sweep("test-remaining", how)

    worst = result.summary["defenses"]["model"]["worst_case"]
    for epsilon in EPSILONS:
        expected = float((float(epsilon) < THRESHOLDS).double().mean())
        assert worst[epsilon]["robust_accuracy"] == expected
        frame = result.outcomes_full[result.outcomes_full["repeat"] == 0]
        cell = frame[(frame["attack"] == "test-remaining") & (frame["epsilon"] == epsilon)]
        full, rest = divmod(int(cell["attacked"].sum()), 6)
        # The check of the sweep's sample asks for single examples besides.
        cut = [6] * full + [rest] * (rest > 0)
        assert sizes.get(float(epsilon), [])[: len(cut)] == cut


@pytest.mark.usefixtures("gradients_alone")
def test_rows_come_out_the_same_however_shards_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """FGSM does not depend on its batch: neither on where a shard ends."""
    filled = sweep("fgsm,test-remaining")
    monkeypatch.setattr(Setting, "shards", lambda self, attacked=None: FIXED(self))
    fixed = sweep("fgsm,test-remaining")

    columns = ["epsilon", "index", "attacked", "broken", "prediction"]
    assert filled.outcomes_full[columns].equals(fixed.outcomes_full[columns])
    assert filled.outcomes_full["broken"].any()


@pytest.mark.usefixtures("gradients_alone")
def test_an_interrupted_run_with_full_batches_is_continued_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 4, whichever task was the last to end: where a shard ends follows from the plan alone."""
    whole = sweep("test-random,test-remaining", out=tmp_path / "whole")
    original = InProcess.run
    for stop_after in (6, 17):
        left = stop_after

        def killed(self: InProcess, tasks: Any, on_busy: Any) -> Iterator[TaskResult]:
            nonlocal left
            for result in original(self, tasks, on_busy):
                if left == 0:
                    raise KeyboardInterrupt
                left -= bool(result.outcomes)
                yield result

        folder = tmp_path / str(stop_after)
        monkeypatch.setattr(InProcess, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep("test-random,test-remaining", out=folder)
        stored = {p: p.stat().st_mtime_ns for p in folder.rglob("*.parquet")}
        assert len(stored) >= stop_after
        monkeypatch.setattr(InProcess, "run", original)
        continued = sweep("test-random,test-remaining", out=folder)
        assert figures(continued.summary) == figures(whole.summary)
        assert all(path.stat().st_mtime_ns == time for path, time in stored.items())


@pytest.mark.parametrize("stop_after", [4, 25, 30, 35])
@pytest.mark.usefixtures("gradients_alone")
def test_a_run_that_ended_its_shards_elsewhere_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """On a CPU they once ended at fixed places: what is finished stays, what is not starts anew."""
    whole = sweep("test-random,test-remaining")
    puts = iter(range(stop_after))
    with monkeypatch.context() as before:
        before.setattr(Setting, "shards", lambda self, attacked=None: FIXED(self))
        put = RunStore.put

        def killed(*arguments: Any) -> None:
            if next(puts, None) is None:
                raise KeyboardInterrupt
            put(*arguments)

        before.setattr(RunStore, "put", killed)
        with pytest.raises(KeyboardInterrupt):
            sweep("test-random,test-remaining", out=tmp_path)
    continued = sweep("test-random,test-remaining", out=tmp_path)
    worst, expected = (
        [at["robust_accuracy"] for at in result.summary["defenses"]["model"]["worst_case"].values()]
        for result in (continued, whole)
    )
    assert worst == expected
    for result in continued.outcomes_full.groupby(["attack", "epsilon", "repeat"]):
        assert sorted(result[1]["index"]) == list(range(int(continued.summary["n"])))
