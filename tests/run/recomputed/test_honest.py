"""Honest runs computed again come out equal, however they came about."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.matrix.execute import InProcess
from bench.record.store import RunStore, open_run
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.run.rebuild import Rebuilder, Source
from bench.run.recompute import Recomputed, recompute
from bench.run.sampling import Sampling
from bench.run.verification import verify_run
from bench.trust import asked
from tests.run.recomputed.runs import EPSILONS, ROWS, Noise, evaluated, shards

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_an_honest_run_comes_out_the_same_to_the_last_digit(
    finished: Path, again: Callable[..., Recomputed]
) -> None:
    """Rows, a minimum-norm attack, what a sweep left out, what others left, random numbers."""
    found = again(finished)
    assert found.differences == ()
    assert found.exact == found.computed == found.drawn == found.stored == shards(finished) > 40
    assert found.whole
    assert found.found == 1
    assert "a single one forged would have been found" in found.text


@pytest.mark.usefixtures("gradients_alone")
@pytest.mark.parametrize("examine", [False, True])
def test_what_took_all_epsilons_in_one_batch_is_computed_in_that_batch(
    tmp_path: Path, again: Callable[..., Recomputed], factories: Path, examine: bool
) -> None:
    """Whole rows, what others left, and what its attack left out; a later epsilon stays apart.

    And its keys follow from what the whole batch was asked.
    """
    for epsilons in (["0.01", "0.05"], EPSILONS):
        folder = evaluated(
            tmp_path, attacks=ROWS, epsilons=epsilons, examine=examine, escalate=False
        )
        found = again(folder)
        assert found.differences == ()
        assert found.whole
        faults = verify_run(folder, model=f"{factories}:Sum", device="cpu").faults
        assert [fault for fault in faults if "is called examined" not in fault] == []


def test_a_batch_of_which_a_part_was_stored_accuses_nobody(
    tmp_path: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its cells, the rest is computed in another batch: the part is not proven."""
    original, puts = RunStore.put, iter(range(100))

    def killed(*arguments: Any) -> None:
        original(*arguments)
        if next(puts) == 8:  # of clean predictions four, and a shard of the attack is three
            raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path, attacks="test-best-rows")
    monkeypatch.setattr(RunStore, "put", original)
    found = again(evaluated(tmp_path, attacks="test-best-rows"))
    assert found.differences == ()
    assert [(shards, reason) for _, shards, reason in found.left_out] == [
        (1, "what it was computed with is not all here")
    ] * 2
    assert found.exact == found.computed == found.stored - 2


@pytest.mark.parametrize("batch_size", [1, 4])
def test_forward_passes_have_the_size_that_they_had(
    tmp_path: Path, again: Callable[..., Recomputed], batch_size: int
) -> None:
    """Of a randomised defense they decide the draws: each shard notes it, memory's end as well."""
    folder = evaluated(
        tmp_path, Noise(), attacks="test-best,test-hungry", epsilons=["0.02"], batch_size=batch_size
    )
    assert again(folder, model="Noise").whole


def test_a_run_that_was_killed_and_extended_comes_out_the_same(
    tmp_path: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its minimum-norm attack was computed for one epsilon, then for more, and charged twice."""
    evaluated(tmp_path, attacks="test-minimum", epsilons=["0.02"])
    original = InProcess.run

    def killed(self, tasks, on_busy):  # type: ignore[no-untyped-def]
        for done, result in enumerate(original(self, tasks, on_busy)):
            if done == 5:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(InProcess, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path)
    monkeypatch.setattr(InProcess, "run", original)
    assert again(evaluated(tmp_path)).whole


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """k-WTA swept, measured and escalated, in two workers; the examination asks for little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "bench.run.inquiry.requests",
            lambda case, menu: [asked("probe-gradients", case.headline.text)],
        )
        stronger = {"scope": "remaining", "round": 1}
        patch.setattr(
            "bench.run.inquiry.escalate",
            lambda evidence, case, menu, number: [
                asked("margin-pgd", case.headline.text).model_copy(update=stronger)
            ][: number == 1],
        )
        config = RunConfig(
            defenses=("kwta",),
            attacks="fgsm,deepfool,square[queries=50],transfer[source=relu-at],surrogate",
            n=8,
            epsilons=("0.02", "0.05", "0.1"),
            shard_size=5,
            workers=2,
            twins=False,
            out=tmp_path_factory.mktemp("runs"),
        )
        result = run(prepare(config))
    assert result.folder is not None
    return result.folder


@pytest.mark.whole
def test_a_defense_examined_and_escalated_comes_out_the_same(swept: Path) -> None:
    """Of every scope, with surrogates and another defense to start from; in two workers again."""
    _, record = open_run(swept)
    cells = [cell for cell in record.cells if cell.status == "ok"]
    assert {cell.scope for cell in cells} == {"all", "remaining", "evidence", "check"}
    assert any(cell.inferred for cell in cells)
    assert any(cell.round for cell in cells)
    found = recompute(swept, Sampling.parse("all", 0, workers=2), Source("cpu"))
    assert found.differences == ()
    assert found.left_out == ()
    assert found.whole


@pytest.mark.whole
def test_a_random_search_comes_out_the_same_whatever_was_computed_before(swept: Path) -> None:
    """The source of a transfer is made on first use, which draws random numbers of its own."""
    store, record = open_run(swept)
    rebuilder = Rebuilder(store, record, Source("cpu"))
    task = next(r.task for r in rebuilder.tasks() if r.task.cell.attack.startswith("transfer"))
    bench = rebuilder.bench(None)
    first, second = (bench.run(task).outcomes[0].frame for _ in range(2))
    assert first.equals(second)


@pytest.mark.whole
def test_measured_numbers_are_computed_again(swept: Path, tmp_path: Path) -> None:
    """One of what each shard of an evidence cell measured, changed in the last digits.

    All the rest comes out the same in this process as in the two workers that the run had.
    """
    folder = shutil.copytree(swept, tmp_path / swept.name)
    store, record = open_run(folder)
    expected = set()
    for cell in [cell for cell in record.cells if cell.scope == "evidence" and cell.status == "ok"]:
        for number, outcomes in enumerate(store.shards(cell.key)):
            frame = outcomes.frame
            measured = [
                str(c) for c in frame if str(c).startswith("extra_") and frame[c].notna().any()
            ]
            for name in measured[number : number + 1]:
                frame[name] = frame[name] * (1 + 1e-12) + 1e-12
                outcomes.save(store.shard_path(cell.key, number))
                expected.add((f"kwta × {cell.label} @ {cell.epsilon}, examples {5 * number}", name))
    assert len(expected) > 1
    found = recompute(folder, Sampling.parse("all", 0), Source("cpu")).differences
    assert {(text.partition(" to ")[0], text.split()[9]) for text in found} == expected
