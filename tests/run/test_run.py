"""Runs as a whole: the same result on one worker or many, interrupted or not, extended or not."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

import bench
import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import DataError, ModelError, StoreError, UsageError
from bench.matrix.execute import InProcess
from bench.record.files import locked
from bench.registry import Suite
from bench.run import load_results, run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.threat import Epsilon
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from pathlib import Path

EPSILONS = ["0.01", "0.02", "0.05"]
ATTACKS = "test-random,test-best,test-minimum"


def figures(summary: dict) -> str:  # type: ignore[type-arg]
    """A summary without what time and place put in."""
    text = json.dumps(summary, sort_keys=True)
    plain = json.loads(text)
    del plain["provenance"]
    for defense in plain["defenses"].values():
        del defense["cost"]["seconds"]
        for cells in defense["attacks"].values():
            for entry in cells.values():
                del entry["seconds"]
    return json.dumps(plain, sort_keys=True)


def evaluate_in(folder: Path | None, attacks: str = ATTACKS, epsilons: list[str] | None = None):  # type: ignore[no-untyped-def]
    """`Sum` on its examples, in shards of 6."""
    examples = linear_examples()
    return attack_only(
        Sum(),
        examples.inputs,
        examples.labels,
        epsilons=epsilons or EPSILONS,
        attacks=attacks,
        shard_size=6,
        out=folder,
    )


def test_the_worst_case_is_the_closed_form_and_never_rises() -> None:
    """At each epsilon the fraction of thresholds beyond it, descending."""
    thresholds = linf_thresholds(linear_examples())
    worst = evaluate_in(None).summary["defenses"]["model"]["worst_case"]
    curve = [worst[epsilon]["robust_accuracy"] for epsilon in EPSILONS]
    assert curve == [float((thresholds > float(e)).double().mean()) for e in EPSILONS]
    assert curve == sorted(curve, reverse=True)
    assert len(set(curve)) > 1


def test_an_adversarial_example_breaks_its_example_at_every_larger_epsilon() -> None:
    """An attack that works only at the smallest epsilon lowers the worst case at every one."""
    thresholds = linf_thresholds(linear_examples())
    defense = evaluate_in(None, "test-small-only", ["0.02", "0.05"]).summary["defenses"]["model"]
    row, worst = defense["attacks"]["test-small-only"], defense["worst_case"]
    exact = float((thresholds > 0.02).double().mean())
    assert exact < 1.0
    assert row["0.02"]["robust_accuracy"] == exact
    assert row["0.05"]["robust_accuracy"] == 1.0
    assert worst["0.02"]["robust_accuracy"] == worst["0.05"]["robust_accuracy"] == exact


def test_rows_use_an_attacks_own_outcomes() -> None:
    """Noise keeps its own, higher figure beside the exact attack."""
    attacks = evaluate_in(None).summary["defenses"]["model"]["attacks"]
    assert attacks["test-random"]["0.02"]["robust_accuracy"] == 1.0
    assert attacks["test-best"]["0.02"]["robust_accuracy"] < 1.0


def test_the_remaining_scope_skips_what_others_broke_and_is_no_row() -> None:
    """It is asked for the survivors only, has no figure of its own, and finds nothing more."""
    result = evaluate_in(None, "test-best,test-remaining", ["0.02"])
    defense = result.summary["defenses"]["model"]
    entry = defense["attacks"]["test-remaining"]["0.02"]
    robust = defense["attacks"]["test-best"]["0.02"]["robust_accuracy"]
    assert entry["robust_accuracy"] is None
    assert entry["attacked"] == round(20 * robust)
    assert entry["broken"] == 0
    assert defense["worst_case"]["0.02"]["robust_accuracy"] == robust


def test_every_figure_follows_from_the_outcomes() -> None:
    """Rows and intervals recomputed from the frame by other means."""
    result = evaluate_in(None)
    for (attack, epsilon), frame in result.outcomes.groupby(["attack", "epsilon"]):
        entry = result.summary["defenses"]["model"]["attacks"][attack][epsilon]
        robust = int((~frame["broken"]).sum())
        assert entry["robust_accuracy"] == robust / 20
        z, p, n = 1.959963984540054, robust / 20, 20
        # The Wilson interval holds exactly the proportions q with |p - q| <= z sqrt(q (1 - q) / n).
        for q in (entry["low"], entry["high"]):
            if 0 < q < 1:
                assert math.isclose(abs(p - q), z * math.sqrt(q * (1 - q) / n), rel_tol=1e-9)


def test_a_whole_suite_has_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """The per-example AND over its rows, below each of them; a suite run in part has none."""
    suite = Suite("pair", "for tests", lambda norm: ["test-random", "test-best"])
    other = Suite("other", "for tests", lambda norm: ["test-random", "fgsm"])
    monkeypatch.setattr("bench.registry.suites", {"pair": suite, "other": other})

    result = evaluate_in(None)

    suites = result.summary["defenses"]["model"]["suites"]
    assert suites.keys() == {"pair"}
    for epsilon in EPSILONS:
        here = result.outcomes.query(
            "epsilon == @epsilon and attack in ('test-random', 'test-best')"
        )
        robust = 1 - here.groupby("index")["broken"].any().mean()
        assert suites["pair"][epsilon]["robust_accuracy"] == pytest.approx(robust)
    assert "| *pair, together* |" in result.to_markdown()


def test_the_same_run_gives_the_same_result(tmp_path: Path) -> None:
    """Twice from nothing, random attack included."""
    first, second = (evaluate_in(tmp_path / name) for name in "ab")
    assert figures(first.summary) == figures(second.summary)


@pytest.mark.whole
def test_a_run_killed_between_shards_is_continued_to_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After each number of finished tasks: what was stored is kept, the rest comes out equal."""
    whole = evaluate_in(tmp_path / "whole")
    original = InProcess.run
    for stop_after in (1, 5, 12):

        def killed(self, tasks, on_busy, limit=stop_after):  # type: ignore[no-untyped-def]
            for done, result in enumerate(original(self, tasks, on_busy)):
                if done == limit and result.task.cells:  # the models have been identified
                    raise KeyboardInterrupt
                yield result

        folder = tmp_path / str(stop_after)
        monkeypatch.setattr(InProcess, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            evaluate_in(folder)
        stored = {p: p.stat().st_mtime_ns for p in folder.rglob("*.parquet")}
        assert stored
        (record,) = folder.glob("*/run.json")
        assert json.loads(record.read_text())["status"] == "interrupted"
        monkeypatch.setattr(InProcess, "run", original)
        assert figures(evaluate_in(folder).summary) == figures(whole.summary)
        assert all(path.stat().st_mtime_ns == time for path, time in stored.items())


def test_a_run_is_extended_by_more_attacks_and_epsilons(tmp_path: Path) -> None:
    """Three commands on one folder end where one command ends, and compute nothing twice."""
    evaluate_in(tmp_path / "grown", "test-random", ["0.02"])
    stored = {p: p.stat().st_mtime_ns for p in (tmp_path / "grown").rglob("*.parquet")}
    evaluate_in(tmp_path / "grown", "test-best,test-minimum", ["0.01", "2/100"])
    grown = evaluate_in(tmp_path / "grown", ATTACKS)
    assert all(path.stat().st_mtime_ns == time for path, time in stored.items())
    whole = evaluate_in(tmp_path / "whole")
    mine, other = grown.summary["defenses"]["model"], whole.summary["defenses"]["model"]
    assert mine["worst_case"] == other["worst_case"]
    assert mine["critical"] == other["critical"]
    assert {a: list(cells) for a, cells in mine["attacks"].items()} == {
        a: list(cells) for a, cells in other["attacks"].items()
    }


def test_an_attack_at_fewer_epsilons_leaves_the_worst_case_incomplete(tmp_path: Path) -> None:
    """The epsilon it never saw says so."""
    evaluate_in(tmp_path, "test-best", ["0.01", "0.02"])
    worst = evaluate_in(tmp_path, "test-random", ["0.01"]).summary["defenses"]["model"][
        "worst_case"
    ]
    assert worst["0.01"]["complete"]
    assert not worst["0.02"]["complete"]


def test_stored_results_are_read_back(tmp_path: Path) -> None:
    """`load_results` gives the summary, outcomes and Markdown of the run that was stored."""
    result = evaluate_in(tmp_path)
    assert result.folder is not None
    loaded = load_results(result.folder)
    assert loaded.to_markdown() == result.to_markdown()
    assert len(loaded.outcomes) == len(result.outcomes) == 3 * 3 * 20
    assert bench.load_results is load_results


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    """A folder that is in use is refused, and says by whom."""
    result = evaluate_in(tmp_path)
    assert result.folder is not None
    with locked(result.folder), pytest.raises(StoreError, match="in use by process"):
        evaluate_in(tmp_path)


def test_the_passed_model_stays_as_it_was() -> None:
    """Training mode, gradients and global generators are the caller's own."""
    examples, model = linear_examples(), Sum().train()
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    attack_only(model, examples.inputs, examples.labels, epsilons=["0.02"], attacks="pgd,square")
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


class Constant(nn.Module):
    """Returns one tensor, whatever the input."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same logits for every input."""
        return self.logits.expand(len(x), *self.logits.shape)


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (torch.zeros(3, 2), "has to return logits"),
        (torch.tensor([float("nan"), 0.0]), "NaN or infinity"),
    ],
)
def test_a_model_without_finite_logits_is_refused(logits: torch.Tensor, message: str) -> None:
    """On the clean inputs, before anything is attacked."""
    examples = linear_examples()
    with pytest.raises(ModelError, match=message):
        attack_only(Constant(logits), examples.inputs, examples.labels, attacks="test-best")


def test_nothing_is_left_behind_by_a_model_that_cannot_be_evaluated(tmp_path: Path) -> None:
    """No record, no outcome."""
    examples = linear_examples()
    nan = Constant(torch.tensor([float("nan"), 0.0]))
    with pytest.raises(ModelError):
        attack_only(nan, examples.inputs, examples.labels, attacks="test-best", out=tmp_path)
    assert not list(tmp_path.rglob("*.json"))
    assert not list(tmp_path.rglob("*.parquet"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilons": ["0"]}, "greater than 0"),
        ({"epsilons": []}, "no epsilon"),
        ({"epsilons": None}, "epsilons have to be"),
        ({"norm": "L7"}, "unknown norm"),
        ({"attacks": "pgdd"}, "did you mean 'pgd'"),
        ({"attacks": ""}, "no attack"),
        ({"labels": torch.full((20,), 2)}, "labels have to be in 0 … 1"),
        ({"inputs": torch.full((20, 1, 4, 4), 1.5)}, r"in \[0, 1\]; got 1.5"),
        ({"inputs": torch.full((20, 1, 4, 4), float("nan"))}, "NaN"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(change: dict, message: str) -> None:  # type: ignore[type-arg]
    """Each mistake names what was got and what is allowed."""
    examples = linear_examples()
    arguments = {
        "inputs": examples.inputs,
        "labels": examples.labels,
        "epsilons": ["0.02"],
        "attacks": "test-best",
        **change,
    }
    with pytest.raises((UsageError, DataError), match=message):
        attack_only(Sum(), arguments.pop("inputs"), arguments.pop("labels"), **arguments)


@pytest.mark.whole
def test_one_process_equals_worker_processes(tmp_path: Path) -> None:
    """A defense on digits, in this process and in two workers, to the last digit."""
    config = RunConfig(
        examine=False,
        defenses=("kwta",),
        attacks="quick",
        n=20,
        shard_size=7,
        epsilons=("0.1",),
        workers=0,
    )
    here = run(prepare(dataclasses.replace(config, out=tmp_path / "one")))
    there = run(prepare(dataclasses.replace(config, out=tmp_path / "two", workers=2)))
    assert figures(here.summary) == figures(there.summary)
    assert here.outcomes_full.equals(there.outcomes_full)


def test_the_size_of_forward_passes_leaves_outcomes_alone(tmp_path: Path) -> None:
    """Split inside the shard for lack of memory: every example is broken or not as before."""
    config = RunConfig(
        examine=False, defenses=("relu",), attacks="fgsm,pgd", n=20, epsilons=("0.1",), workers=0
    )
    whole = run(prepare(dataclasses.replace(config, out=tmp_path / "whole")))
    split = run(prepare(dataclasses.replace(config, out=tmp_path / "split", batch_size=3)))
    assert whole.outcomes["broken"].tolist() == split.outcomes["broken"].tolist()


def test_epsilons_equal_in_value_are_one() -> None:
    """Written twice, kept as first written."""
    summary = evaluate_in(None, "test-best", ["0.02", "1/50", "0.05"]).summary
    assert summary["epsilons"] == ["0.02", "0.05"]
    assert Epsilon.parse("1/50") == Epsilon.parse("0.02")
