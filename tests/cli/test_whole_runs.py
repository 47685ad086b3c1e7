"""Whole runs, as a shell starts them: verified, asked again, published, killed and continued."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.commands import ROOT, call, interpret, start

if TYPE_CHECKING:
    import subprocess

PYTHON_M_BENCH = [sys.executable, "-m", "bench"]
WINNOW = Path(sys.executable).with_name("winnow")
DIGITS = ["run", "--defense", "kwta", "--attacks", "all", "--n", "10", "--eps", "0.1"]


def figures(folder: Path) -> str:
    """The only run's tables in a folder of runs."""
    return (folder / "leaderboard.md").read_text()


SPEAKING = """
import sys
from bench.cli import main
from bench.run import progress
progress.QUIET_INTERVAL = 0.0
sys.argv = {words}
main()
"""


def test_a_run_tells_a_log_what_is_done_and_what_is_left(tmp_path: Path) -> None:
    """A line as often as there is something to say, where no terminal is."""
    words = ["bench", "run", "--defense", "relu", "--attacks", "fgsm", "--n", "4", "--no-examine"]
    done = call(SPEAKING.format(words=[*words, "--out", str(tmp_path)]), kind="source")
    assert done.returncode == 0, done.stderr
    assert "\n5/5 cells, ETA 0:00: @ 0.1: relu " in done.stderr  # clean, and four epsilons


@pytest.fixture(scope="module")
def digits(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The README's command on 10 examples, at one epsilon, as a user's shell starts it."""
    out = tmp_path_factory.mktemp("runs")
    return out, interpret([*PYTHON_M_BENCH, *DIGITS, "--out", out], cwd=ROOT)


@pytest.mark.whole
def test_the_digits_command_runs_and_prints_the_matrix(
    digits: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Exit code 0; the matrix holds every attack; the files are where they are said to be."""
    out, done = digits
    assert done.returncode == 0, done.stderr
    for attack in ("fgsm", "pgd", "apgd-t", "fab-t", "square", "hop-skip-jump", "cw", "worst case"):
        assert f"{attack}" in done.stdout
    (summary_path,) = out.glob("*/summary.json")
    summary = json.loads(summary_path.read_text())
    defense = summary["defenses"]["kwta"]
    assert defense["failed"] == []
    worst = defense["worst_case"]["0.1"]["robust_accuracy"]
    rows = [cells["0.1"]["robust_accuracy"] for cells in defense["attacks"].values()]
    assert worst <= min(row for row in rows if row is not None)
    assert worst < defense["attacks"]["pgd"]["0.1"]["robust_accuracy"]
    assert figures(out) in done.stdout


@pytest.mark.whole
def test_the_run_verifies_and_a_changed_byte_does_not(
    digits: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """Exit code 0, then 1 with the file named."""
    out, _ = digits
    (run,) = (path.parent for path in out.glob("*/run.json"))
    held = call("verify", run)
    assert held.returncode == 0, held.stdout + held.stderr
    assert held.stdout.startswith("verified:")
    assert re.search(r"\d+ of \d+ shards computed again from their seeds.*: equal", held.stdout)
    path = next(run.glob("adversarial/*/*.safetensors"))
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    spoilt = call("verify", run)
    path.write_bytes(data)
    assert spoilt.returncode == 1
    assert path.name in spoilt.stdout


@pytest.mark.whole
def test_the_same_command_computes_nothing_again(
    digits: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    """No outcome is rewritten, and the table is the same."""
    out, _ = digits
    table = figures(out)
    stored = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    again = call(*DIGITS, "--out", out)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == stored
    assert figures(out) == table


@pytest.mark.whole
def test_a_run_is_published_once_it_holds(
    digits: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Its summary is copied, the leaderboard written; a tampered run is refused."""
    out, _ = digits
    (run,) = (path.parent for path in out.glob("*/run.json"))
    done = call("report", "--publish", run, "--published", tmp_path)
    assert done.returncode == 0, done.stderr
    published = tmp_path / run.name / "summary.json"
    assert published.read_bytes() == (run / "summary.json").read_bytes()
    assert (tmp_path / "leaderboard.md").read_text() == figures(out)
    summary = run / "summary.json"
    data = summary.read_bytes()
    summary.write_bytes(data + b" ")
    refused = call("report", "--publish", run, "--published", tmp_path)
    summary.write_bytes(data)
    assert refused.returncode == 2
    assert "summary.json was changed" in refused.stderr


STOPPED = [
    "run", "--defense", "relu", "--attacks", "fgsm,pgd,square[queries=1000]", "--n", "20",
    "--shard-size", "5", "--eps", "0.1", "--no-escalate", "--workers",
]  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tables of the run that others are stopped in, never stopped, by one process."""
    out = tmp_path_factory.mktemp("whole")
    assert call(*STOPPED, 0, "--out", out).returncode == 0
    return figures(out)


@pytest.mark.whole
@pytest.mark.parametrize(("stop", "workers"), [(signal.SIGKILL, 2), (signal.SIGINT, 0)])
def test_a_killed_run_is_continued_to_the_same_table(
    tmp_path: Path, whole: str, stop: signal.Signals, workers: int
) -> None:
    """Stopped once two shards are stored, with two workers; then run again, on two or none."""
    out = tmp_path / "killed"
    process = start(*STOPPED, 2, "--out", out)
    deadline = time.monotonic() + 120
    while len(list(out.rglob("*.parquet"))) < 6 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, stop)
    ended = process.wait()
    assert len(list(out.rglob("*.parquet"))) < 16, "it was to be stopped half-way"
    if stop is signal.SIGINT:
        assert ended.returncode == 130
        assert "the same command continues" in ended.stderr
    # Workers end with their parent: nothing is left of the process group.
    deadline = time.monotonic() + 30
    while _alive(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(process.pid)
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    resumed = call(*STOPPED, workers, "--out", out)
    assert resumed.returncode == 0, resumed.stderr
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in kept.items())
    assert figures(out) == whole


def _alive(group: int) -> bool:
    """Whether any process of a group is left that is not waiting to be buried."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


@pytest.mark.whole
def test_the_console_script_is_not_shadowed_by_a_user_s_own_folders(tmp_path: Path) -> None:
    """`winnow` from a folder with `attacks`, `defenses` and `bench` of its own, on two workers."""
    for name in ("attacks", "defenses", "bench"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong package')\n")
    done = interpret(
        [WINNOW, "run", "--defense", "relu", "--attacks", "fgsm", "--n", 10, "--eps", "0.1",
         "--workers", 2, "--shard-size", 5, "--no-examine"], cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "results" / "runs" / "leaderboard.md").is_file()
