"""A run that was stopped or damaged: what it had finished stands, and what to do is said."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import StoreError
from bench.matrix.execute import InProcess
from bench.record.store import open_run
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.run.rebuild import Source
from bench.run.recompute import recompute
from bench.run.sampling import Sampling
from bench.run.verification import verify_run
from tests.run.forging import SOURCE, Forger, small_run
from tests.toy_models import Sum

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.matrix.work import TaskResult

EPSILONS = ["0.02", "0.05"]


@pytest.fixture
def model(tmp_path: Path) -> str:
    """`--model` for `Sum`."""
    file = tmp_path / "models.py"
    file.write_text(SOURCE)
    return f"{file}:Sum"


def interrupted(patch: pytest.MonkeyPatch, after: int, *arguments: Any, **how: Any) -> None:
    """A run that gets Ctrl-C after so many of its tasks, asking who the model is not counted."""
    original = InProcess.run

    def stopped(*given: Any) -> Iterator[TaskResult]:
        nonlocal after
        for result in original(*given):
            after -= bool(result.task.cells)
            if after < 0:
                raise KeyboardInterrupt
            yield result

    with patch.context() as own:
        own.setattr(InProcess, "run", stopped)
        with pytest.raises(KeyboardInterrupt):
            small_run(*arguments, epsilons=EPSILONS, **how)


def summary_of(folder: Path) -> Any:
    """The model's part of the stored summary."""
    return json.loads((folder / "summary.json").read_bytes())["defenses"]["model"]


def check(folder: Path, model: str, status: str) -> None:
    """The run holds, says whether it finished, and comes out the same."""
    findings = verify_run(folder, model=model, device="cpu")
    assert findings.faults == []
    assert any(note.startswith(f"the run is {status}") for note in findings.notes)
    found = recompute(folder, Sampling.parse("all", 0), Source("cpu", model=model))
    assert found.differences == ()


def test_what_an_interrupted_extension_found_stands_beside_what_was_there(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The finished run keeps every figure, rows and what others left, and is no worse for it."""
    out, first = tmp_path / "runs", "test-minimum,test-remaining"
    folder = small_run(Sum(), out, attacks=first, epsilons=EPSILONS)
    before = summary_of(folder)
    interrupted(monkeypatch, 3, Sum(), out, attacks=f"{first},fgsm")
    after = summary_of(folder)
    assert after["clean_accuracy"] == before["clean_accuracy"]
    assert after["attacks"].items() >= before["attacks"].items()
    assert {cell["status"] for cell in after["attacks"]["fgsm"].values()} == {"incomplete"}
    check(folder, model, "interrupted")
    again = small_run(Sum(), out, attacks=f"{first},fgsm", epsilons=EPSILONS)
    assert open_run(again)[1].status == "complete"
    assert {cell["status"] for cell in summary_of(again)["attacks"]["fgsm"].values()} == {"ok"}


def test_what_an_interrupted_run_finished_has_its_figures(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of phases that ended are finished; what others broke counts in the worst case."""
    interrupted(monkeypatch, 7, Sum(), tmp_path / "runs", attacks="fgsm,test-remaining")
    (path,) = tmp_path.glob("runs/*/run.json")
    part = summary_of(path.parent)
    assert part["clean_accuracy"] is not None
    status = {name: {c["status"] for c in row.values()} for name, row in part["attacks"].items()}
    assert status == {"fgsm": {"ok"}, "test-remaining": {"incomplete"}}
    check(path.parent, model, "interrupted")


def test_measurements_of_an_interrupted_examination_hide_nothing(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no cells of the run yet, and the command that is run again takes them."""
    interrupted(monkeypatch, 12, Sum(), tmp_path / "runs", attacks="fgsm", examine=True)
    (path,) = tmp_path.glob("runs/*/run.json")
    _, record = open_run(path.parent)
    assert {cell.attack for cell in record.cells} == {"clean", "fgsm"}
    assert record.replaced
    check(path.parent, model, "interrupted")


@pytest.mark.parametrize("status", ["running", "interrupted"])
def test_a_run_that_was_killed_is_told_in_one_line(tmp_path: Path, model: str, status: str) -> None:
    """Its record is newer than its manifest: what is to be done, and not all that differs."""
    folder = small_run(Sum(), tmp_path / "runs", attacks="fgsm", epsilons=EPSILONS)
    with Forger(folder).record() as content:
        content["status"] = status
    (folder / "cells" / ("f" * 32)).mkdir()
    told = verify_run(folder, model=model, device="cpu").faults
    assert told == ["the run did not finish: run its command again"]


@pytest.mark.parametrize("damaged", [b"{", b"[]"])
def test_a_damaged_record_says_what_to_do_and_that_does_it(tmp_path: Path, damaged: bytes) -> None:
    """In one line; `--fresh` forgets what is stored, the damaged record with it."""
    config = RunConfig(
        defenses=("relu",), attacks="fgsm", n=4, epsilons=("0.1",), examine=False, workers=0,
        out=tmp_path,
    )  # fmt: skip
    folder = run(prepare(config)).folder
    assert folder is not None
    (folder / "run.json").write_bytes(damaged)
    with pytest.raises(StoreError, match=r"run\.json is not .*; restore the file, or .* --fresh"):
        run(prepare(config))
    run(prepare(dataclasses.replace(config, fresh=True)))
    assert open_run(folder)[1].status == "complete"
