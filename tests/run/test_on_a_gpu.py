"""Whole commands on a pretended GPU: a run with its examination, and what is done with a run.

Together they take 29 seconds of a processor, most of them the one examined run.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from typer.testing import CliRunner

from bench import registry
from bench.cli import app
from bench.data import open_dataset
from bench.run import evaluation, run
from bench.run.config import RunConfig
from bench.run.imports import import_adversarial
from bench.run.prepare import prepare
from bench.run.rebuild import Source
from bench.run.recompute import recompute
from bench.run.sampling import Sampling
from bench.run.verification import verify_run
from bench.testing import selftest
from bench.testing.conformance import examine
from bench.train import TrainConfig, train
from tests.pretended import pretended_gpu
from tests.train.toys import FewDigits

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.run import Result

pytestmark = pytest.mark.whole


@pytest.fixture(autouse=True)
def gpu() -> Iterator[None]:
    """There is one in every test."""
    with pretended_gpu():
        yield


def config(folder: Path) -> RunConfig:
    """Two digits in this process."""
    return RunConfig(
        defenses=("relu",), attacks="fgsm", epsilons=("0.1",), n=2, device="cuda", workers=0,
        twins=False, out=folder,
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """Examined and escalated."""
    with pretended_gpu():
        return run(prepare(config(tmp_path_factory.mktemp("run"))))


def test_a_run_is_examined_and_escalated(result: Result) -> None:
    """No cell fails, and the probes were measured."""
    defense = result.summary["defenses"]["relu"]
    assert defense["failed"] == []
    measured = {item["id"] for item in defense["evidence"] if item["status"] != "not run"}
    assert {"gradient-fidelity", "nan-logits", "batch-dependence"} <= measured
    assert result.summary["provenance"]["device"].startswith("cuda")


def test_it_is_verified_and_computed_again(result: Result) -> None:
    """Every shard that is drawn comes out the same."""
    assert result.folder is not None
    assert verify_run(result.folder, device="cuda").faults == []
    again = recompute(result.folder, Sampling(Fraction(1, 10), 0), Source(device="cuda:0"))
    assert again.differences == ()
    assert again.exact == again.computed > 0


def test_adversarial_examples_are_imported(result: Result, tmp_path: Path) -> None:
    """They are judged beside the run's own."""
    assert result.folder is not None
    inputs = open_dataset("digits").choose("test", 2).inputs.numpy()
    np.savez(tmp_path / "a.npz", adversarial=(inputs + 0.1).clip(0, 1))
    found = import_adversarial(config(result.folder.parent), tmp_path / "a.npz", "mine")
    assert found.result.folder == result.folder
    assert not found.result.failed


def test_a_landscape_is_drawn(tmp_path: Path) -> None:
    """By the command."""
    wanted = ["--defense", "kwta", "--steps", "2", "--device", "cuda", "--out", str(tmp_path / "a")]
    done = CliRunner().invoke(app, ["figure", "landscape", *wanted])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    "name", ["relu", "kwta", "relu-at", "kwta-trades", "relu-free", "kwta-fast"]
)
def test_recipes_train(name: str, tmp_path: Path) -> None:
    """An epoch in mixed precision; where it starts from other weights, those come first."""
    how = TrainConfig(device="cuda:0", epochs=1)
    made = train(registry.defenses.create(name), FewDigits(), how, out=tmp_path)
    assert made.path.exists()


@pytest.mark.parametrize(("noun", "name"), [("defense", "kwta"), ("attack", "margin-pgd")])
def test_plugins_are_checked(noun: str, name: str) -> None:
    """No rule fails there."""
    assert [str(each) for each in examine(noun, name, "cuda:0") if each.status == "failed"] == []


def test_the_selftest_evaluates_where_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are trained on the CPU, and attacked on the device."""
    asked = []

    def evaluate(*arguments: object, **how: object) -> Result:
        asked.append(how["device"])
        raise KeyError

    monkeypatch.setattr(evaluation, "evaluate", evaluate)
    monkeypatch.setattr(
        selftest, "_evaluate_all", lambda jobs, workers: ((j, selftest._attempt(j)) for j in jobs)
    )
    done = CliRunner().invoke(app, ["selftest", "--only", "linear", "--device", "cuda"])
    assert done.exit_code == 1
    assert asked == ["cuda:0"]
