"""Runs beside one another and after one that was killed; full disks; damaged neighbours."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import threading
from typing import TYPE_CHECKING, Any

import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import StoreError, StoreWarning
from bench.matrix.execute import InProcess
from bench.record.files import is_held, locked, read_json, write_json
from bench.record.runs import stored_runs
from bench.record.store import RunStore
from bench.report import write_leaderboard
from bench.report.tables import render_runs
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.run import Result

WIDE = ["test-best", "test-random", "fgsm"]
#: One epsilon and one shard: few files, each of which the disk may have no room for.
SMALL: dict[str, Any] = {"epsilons": ["0.02"], "shard_size": 20}


def attack(out: Path, attacks: Any = "test-best", seed: int = 0, **settings: Any) -> Result:
    """`Sum` on its examples, in two shards."""
    examples = linear_examples()
    settings = {"epsilons": ["0.01", "0.02"], "shard_size": 10, **settings}
    return attack_only(
        Sum(), examples.inputs, examples.labels, attacks=attacks, seed=seed, out=out, **settings
    )


def figures(result: Result) -> str:
    """All outcomes, without the time that they took."""
    part = result.summary["defenses"]["model"]
    rows = {
        (name, epsilon): entry["robust_accuracy"]
        for name, cells in part["attacks"].items()
        for epsilon, entry in cells.items()
    }
    return repr((rows, part["worst_case"], part["critical"], result.outcomes_full.to_csv()))


class Disk:
    """A disk that is full at one call of a function, or from it on."""

    def __init__(self, at: int, lasting: bool) -> None:
        self.at, self.lasting, self.calls = at, lasting, 0

    def wrap(self, function: Any) -> Any:
        """The function, as far as there is room."""

        def called(*arguments: Any, **keywords: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.lasting and self.calls > self.at):
                raise OSError(errno.ENOSPC, "No space left on device")
            return function(*arguments, **keywords)

        return called


@pytest.mark.parametrize(
    ("function", "lasting", "before"),
    [
        ("fsync", False, False),
        ("fsync", False, True),
        ("fsync", True, True),
        ("mkdir", True, False),
        ("write", True, False),
    ],
)
def test_a_disk_full_at_any_write_loses_nothing(
    function: str, lasting: bool, before: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each call in turn: `run.json` stays whole, and the same command gives the same table.

    It is full once, or until the command ends; where a narrower run was there before, its record is
    not lost either.
    """
    narrow, kept = tmp_path / "narrow", set()
    if before:
        record = read_json(_folder(attack(narrow, **SMALL)) / "run.json")
        kept = {(cell["attack"], cell["epsilon"]) for cell in record["cells"]}
    wanted = figures(attack(tmp_path / "whole", WIDE[:2], **SMALL))
    failed = 0
    for at in itertools.count(1):
        out = tmp_path / str(at)
        if before:
            shutil.copytree(narrow, out)
        disk = Disk(at, lasting)
        with monkeypatch.context() as patch:
            patch.setattr(os, function, disk.wrap(getattr(os, function)))
            failed += _ends_full(out)
        if disk.calls < at:
            break
        begun = len(list(out.glob("*/cells/*/*"))) > len(list(narrow.glob("*/cells/*/*")))
        wide = {(name, "0.02") for name in WIDE[:2]} if begun else set()
        if kept or begun:  # what is stored is known to the record, and asked for
            (path,) = out.glob("*/run.json")
            assert {(c["attack"], c["epsilon"]) for c in read_json(path)["cells"]} >= wide | kept
        assert figures(attack(out, WIDE[:2], **SMALL)) == wanted
        assert not list(out.rglob("*.partial"))
    assert failed >= {"write": 0, "mkdir": 3}.get(function, 8)


def _ends_full(out: Path) -> bool:
    """Whether the wide command ended because the disk was full; it may end by nothing else."""
    try:
        attack(out, WIDE[:2], **SMALL)
    except StoreError as error:
        return "disk is full" in str(error) or "No space left" in str(error)
    return False


def _folder(result: Result) -> Path:
    assert result.folder is not None
    return result.folder


@pytest.fixture
def killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs in which a wide command was killed after three tasks."""
    original = InProcess.run

    def interrupted(self: InProcess, tasks: Any, on_busy: Any) -> Iterator[Any]:
        for done, result in enumerate(original(self, tasks, on_busy)):
            if done == 1 and len(tasks) > 2:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(InProcess, "run", interrupted)
        patch.setattr(RunStore, "write_record", _unless_interrupted(RunStore.write_record))
        with pytest.raises(KeyboardInterrupt):
            attack(tmp_path / "runs", WIDE, epsilons=["0.01", "0.02", "0.05"])
    return tmp_path / "runs"


def _unless_interrupted(original: Any) -> Any:
    """A process that was killed writes no last record."""

    def write(self: RunStore, record: Any) -> None:
        if record.status != "interrupted":
            original(self, record)

    return write


def test_a_narrower_command_leaves_the_record_of_a_killed_wider_one(killed: Path) -> None:
    """It tells of its own cells alone, complete; the record still knows what is missing."""
    (path,) = killed.glob("*/run.json")
    before = read_json(path)
    assert {cell["status"] for cell in before["cells"]} == {"incomplete"}

    narrow = attack(killed, "test-best", epsilons=["0.02"])

    record = read_json(path)
    part = narrow.summary["defenses"]["model"]
    assert not narrow.failed
    assert part["failed"] == []
    assert {name: list(cells) for name, cells in part["attacks"].items()} == {"test-best": ["0.02"]}
    assert part["worst_case"]["0.02"]["complete"]
    missing = {(c["attack"], c["epsilon"]) for c in record["cells"] if c["status"] == "incomplete"}
    asked = {(name, epsilon) for name in WIDE for epsilon in ("0.01", "0.02", "0.05")}
    assert missing == asked - {("test-best", "0.02")}
    assert record["status"] == "interrupted"
    assert record["provenance"]["command"] == before["provenance"]["command"]
    (run,) = stored_runs(killed)
    assert run.state == "interrupted"


def test_the_wider_command_then_finishes_as_if_nothing_had_been(
    killed: Path, tmp_path: Path
) -> None:
    """With the narrower one in between, its table is that of a run without either."""
    attack(killed, "test-best", epsilons=["0.02"])
    again = attack(killed, WIDE, epsilons=["0.01", "0.02", "0.05"])
    assert figures(again) == figures(
        attack(tmp_path / "whole", WIDE, epsilons=["0.01", "0.02", "0.05"])
    )
    assert read_json(_folder(again) / "run.json")["status"] == "complete"


def test_a_command_does_not_report_another_one_s_failure(tmp_path: Path) -> None:
    """A cell that failed stays in the record, with its trace, and out of a narrower result."""
    wide = attack(tmp_path, ["test-best", "test-raises"])
    assert wide.failed
    traces = sorted((_folder(wide) / "errors").iterdir())

    narrow = attack(tmp_path, "test-best")

    assert not narrow.failed
    record = read_json(_folder(narrow) / "run.json")
    assert {c["attack"] for c in record["cells"] if c["status"] == "failed"} == {"test-raises"}
    assert sorted((_folder(narrow) / "errors").iterdir()) == traces != []
    assert read_json(_folder(narrow) / "summary.json")["defenses"]["model"]["failed"]


DAMAGE = {
    "empty": b"",
    "half": b'{"schema": 1, "defenses": {"a"',
    "not text": b"\xff\xfe\x00",
    "a list": b"[]",
    "null": b"null",
    "a number": b"3",
    "no parts": b'{"schema": 1, "defenses": {}}',
    "a bad part": b'{"schema": 1, "defenses": {"a": null}}',
    "a list of parts": b'{"schema": 1, "defenses": []}',
    "deep": b"[" * 100_000,
    "deep objects": b'{"defenses":' * 100_000,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_summary_does_not_spoil_the_end_of_other_runs(
    damage: str, tmp_path: Path
) -> None:
    """It is named in a warning of one line and left out; every other row is there."""
    bad = tmp_path / "0000000000000000"
    bad.mkdir()
    (bad / "summary.json").write_bytes(DAMAGE[damage])
    with pytest.warns(StoreWarning) as warned:
        result = attack(tmp_path)
    (message,) = [str(w.message) for w in warned if issubclass(w.category, StoreWarning)]
    assert message.startswith(f"left out of the leaderboard: {bad / 'summary.json'}")
    assert "\n" not in message
    assert result.summary["run"][:8] in (tmp_path / "leaderboard.md").read_text()


def test_whatever_is_missing_of_a_summary_leaves_the_others_theirs(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    """Each value of a good one removed, or made another type, in turn: never an error."""
    result = attack(tmp_path, examine=False)
    good = _folder(result) / "summary.json"
    content = read_json(good)
    bad = tmp_path / "0000000000000000" / "summary.json"
    tried = 0
    values: list[Any] = [None, "x", -1, [], {}, ...]
    for path in _paths(content):
        for value in values:
            changed = json.loads(good.read_bytes())
            place = changed
            for key in path[:-1]:
                place = place[key]
            if value is ...:
                del place[path[-1]]
            else:
                place[path[-1]] = value
            write_json(bad, changed)
            text = write_leaderboard(tmp_path).read_text()
            assert result.summary["run"][:8] in text
            tried += 1
    assert tried > 400


def _paths(value: Any, depth: int = 0) -> Iterator[tuple[Any, ...]]:
    """The way to every value of a JSON document, a few of each list."""
    items = list(value.items()) if isinstance(value, dict) else []
    if isinstance(value, list):
        items = list(enumerate(value))[:1]
    for key, inner in items:
        yield (key,)
        for rest in _paths(inner, depth + 1):
            yield (key, *rest)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_a_line_of_the_list(damage: str, tmp_path: Path) -> None:
    """Told as damaged beside the others, which stay as they are."""
    result = attack(tmp_path)
    bad = tmp_path / "0000000000000000"
    bad.mkdir()
    (bad / "run.json").write_bytes(DAMAGE[damage])
    runs = stored_runs(tmp_path)
    assert {run.folder.name: run.state for run in runs} == {
        "0000000000000000": "damaged",
        result.summary["run"]: "complete",
    }
    assert len(render_runs(runs).splitlines()) == 4


def test_the_leaderboard_is_written_under_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody reads the summaries while another is about to write what it read."""
    held = []

    def look(folder: Path) -> list[Any]:
        held.append(is_held(folder))
        return []

    monkeypatch.setattr("bench.report.read_summaries", look)
    write_leaderboard(tmp_path)
    assert held == [True]


def test_who_comes_second_waits_and_sees_what_the_first_has_written(tmp_path: Path) -> None:
    """A summary that arrives while the folder is held is a row of the next leaderboard."""
    result = attack(tmp_path / "runs")
    summary = _folder(result) / "summary.json"
    hidden = summary.rename(tmp_path / "summary.json")
    with locked(tmp_path / "runs"):
        second = threading.Thread(target=write_leaderboard, args=(tmp_path / "runs",))
        second.start()
        hidden.rename(summary)
    second.join()
    assert result.summary["run"][:8] in (tmp_path / "runs" / "leaderboard.md").read_text()
