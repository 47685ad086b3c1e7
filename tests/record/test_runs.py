"""Stored runs: found by the beginning of an id, listed in any state, removed with care."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from bench.errors import StoreError, UsageError
from bench.record.files import locked, read_json, write_json
from bench.record.runs import clean, find_run, look_at, plan_cleaning, stored_runs, stored_summary
from bench.report.tables import render_run, render_runs, status_of
from tests.toy_models import Sum, attack_only, linear_examples


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One complete run."""
    examples = linear_examples(4)
    result = attack_only(
        Sum(), examples.inputs, examples.labels, epsilons=["0.02"], attacks="fgsm",
        out=tmp_path_factory.mktemp("made"),
    )  # fmt: skip
    assert result.folder is not None
    return result.folder


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    """A folder with a complete, an interrupted and a damaged run, and what a killed one left."""
    folder = tmp_path / "runs"
    shutil.copytree(finished, folder / finished.name)
    other = copy_as(finished, folder, "ffff000000000000")
    record = read_json(other / "run.json")
    record["status"] = "interrupted"
    record["cells"][-1] |= {"status": "incomplete", "reason": "out of | budget"}
    write_json(other / "run.json", record)
    damaged = copy_as(finished, folder, "eeee000000000000")
    (damaged / "run.json").write_text("{")
    killed = folder / "dddd000000000000"
    killed.mkdir()
    (killed / ".lock").touch()
    (killed / "cells").mkdir()
    (killed / "cells" / ".0000.parquet.17.partial").write_bytes(b"half")
    (folder / "leaderboard.md").write_text("table")
    (folder / "elsewhere").symlink_to(finished)
    (folder / "notes").mkdir()
    return folder


def copy_as(run: Path, folder: Path, name: str) -> Path:
    """The run under another id."""
    copied = shutil.copytree(run, folder / name)
    record = read_json(copied / "run.json")
    write_json(copied / "run.json", {**record, "id": name})
    return copied


def test_every_run_is_listed_with_its_state(out: Path, finished: Path) -> None:
    """Complete, interrupted, damaged; no link, no other folder; sizes are those of the files."""
    runs = {run.folder.name: run for run in stored_runs(out)}

    assert {name: run.state for name, run in runs.items()} == {
        finished.name: "complete",
        "ffff000000000000": "interrupted",
        "eeee000000000000": "damaged",
        "dddd000000000000": "damaged",
    }
    files = [path for path in finished.rglob("*") if path.is_file()]
    assert runs[finished.name].bytes == sum(len(path.read_bytes()) for path in files)
    assert "eeee000000000000/run.json is not JSON" in runs["eeee000000000000"].reason
    text = render_runs(list(runs.values()))
    assert len(text.splitlines()) == 2 + 4
    assert "| Linf | 4 | model | complete |" in text


def test_a_run_is_running_while_its_folder_is_held(out: Path, finished: Path) -> None:
    """And was killed when it says so and is not."""
    record = read_json(out / finished.name / "run.json")
    write_json(out / finished.name / "run.json", {**record, "status": "running"})

    assert look_at(out / finished.name).state == "interrupted"
    with locked(out / finished.name):
        assert look_at(out / finished.name).state == "running"


def test_show_names_what_is_unfinished_and_what_continues_it(out: Path, finished: Path) -> None:
    """Cells, reasons, command; a complete run has nothing to continue."""
    whole, broken = look_at(out / finished.name), look_at(out / "ffff000000000000")

    assert status_of(whole)["continue"] is None
    assert status_of(whole)["unfinished"] == []
    found = status_of(broken)
    assert found["continue"] == "bench.evaluate()"
    assert [cell["reason"] for cell in found["unfinished"]] == ["out of | budget"]
    text = render_run(broken, None)
    assert "out of \\| budget" in text
    assert "Continue it: `bench.evaluate()`" in text
    assert "| model | 100.0 |" in render_run(whole, stored_summary(whole.folder))


def test_many_unfinished_cells_of_one_reason_are_one_row(out: Path) -> None:
    """Nobody reads 147 of them; JSON has them all."""
    folder = out / "ffff000000000000"
    record = read_json(folder / "run.json")
    *others, last = record["cells"]
    record["epsilons"] = ["0.02", "0.03"]
    record["cells"] = others + [
        {**last, "attack": f"attack-{i}", "epsilon": epsilon, "key": f"{i}{epsilon[-1]}"}
        for i in range(70)
        for epsilon in ("0.02", "0.03")
    ]
    write_json(folder / "run.json", record)
    found = look_at(folder)

    assert len(status_of(found)["unfinished"]) == 140
    named = ", ".join(f"attack-{i}" for i in range(5))
    (row,) = [line for line in render_run(found, None).splitlines() if "incomplete |" in line]
    assert row.startswith(f"| model | {named} … (70 attacks) | 0.02, 0.03 | incomplete |")


def test_a_run_is_found_by_path_id_and_beginning(out: Path, finished: Path) -> None:
    """What is unclear or unknown is refused with the names."""
    assert find_run(str(out / finished.name), Path("nowhere")) == out / finished.name
    assert find_run(finished.name, out) == out / finished.name
    assert find_run("ff", out) == out / "ffff000000000000"
    copy_as(finished, out, "ffff111111111111")
    with pytest.raises(UsageError, match=r"2 runs in .* begin with 'ffff'"):
        find_run("ffff", out)
    with pytest.raises(UsageError, match=r"unknown run .*did you mean 'ffff000000000000'"):
        find_run("fff0000000000000", out)
    with pytest.raises(UsageError, match=r"unknown run in .*notes 'ffff'; known: none"):
        find_run("ffff", out / "notes")
    with pytest.raises(UsageError, match=r"neither run\.json nor summary\.json"):
        find_run(str(out / "notes"), out)
    os.utime(out / "ffff000000000000" / "run.json", ns=(1, 2**62))
    assert find_run("latest", out) == out / "ffff000000000000"
    for text in ("", "..", "."):
        with pytest.raises(UsageError):
            find_run(text, out)


def test_a_summary_of_a_changed_run_is_not_read(out: Path, finished: Path) -> None:
    """Its manifest tells."""
    (out / finished.name / "summary.json").write_text("{}")

    with pytest.raises(StoreError, match=r"summary\.json was changed"):
        stored_summary(out / finished.name)


def test_cleaning_plans_and_touches_nothing(out: Path) -> None:
    """By default half-written files alone; with unfinished the runs that are not complete."""
    before = sorted(out.rglob("*"))

    half = plan_cleaning(out)
    unfinished = plan_cleaning(out, unfinished=True)

    assert [item.path.name for item in half] == [".0000.parquet.17.partial"]
    assert {item.path.name for item in unfinished} == {"ffff000000000000", "dddd000000000000"}
    assert sorted(out.rglob("*")) == before


def test_what_is_removed_is_gone_and_the_rest_is_there(out: Path, finished: Path) -> None:
    """A damaged run that is not empty stays, and so do links, notes and what links point to."""
    clean(plan_cleaning(out, [out / "ffff000000000000"]))

    left = {path.name for path in out.iterdir()}
    names = {finished.name, "eeee000000000000", "dddd000000000000"}
    assert left == names | {"leaderboard.md", "elsewhere", "notes"}
    assert not list(out.rglob("*.partial"))
    assert (finished / "run.json").is_file()
    assert stored_summary(out / finished.name)["n"] == 4


def test_what_must_stay_is_refused(out: Path, finished: Path, tmp_path: Path) -> None:
    """Published, in use, outside, a link, or not what Winnow wrote."""
    published = shutil.copytree(finished, tmp_path / "published" / finished.name)
    with pytest.raises(StoreError, match="is published"):
        plan_cleaning(published.parent, [published])
    assert plan_cleaning(published.parent, unfinished=True) == []
    for path in (finished, out / "notes", out):
        with pytest.raises(StoreError, match="is not the folder of a run in"):
            plan_cleaning(out, [path])
    with pytest.raises(StoreError, match="not what Winnow wrote"):
        plan_cleaning(out, [out / "eeee000000000000"])
    with locked(out / finished.name):
        with pytest.raises(StoreError, match="is in use"):
            plan_cleaning(out, [out / finished.name])
        kept = plan_cleaning(out, unfinished=True)
    assert finished.name not in {item.path.name for item in kept}


def test_a_run_that_came_into_use_is_not_removed(out: Path) -> None:
    """Between the plan and the removal."""
    (removal,) = (r for r in plan_cleaning(out, [out / "ffff000000000000"]) if r.run)

    with locked(removal.path), pytest.raises(StoreError, match="in use"):
        clean([removal])

    assert (removal.path / "run.json").is_file()
