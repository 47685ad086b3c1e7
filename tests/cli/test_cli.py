"""The command line, in processes of its own: two of them new interpreters, the others forked."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
import types
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bench.cli import app, main
from bench.errors import UsageError
from tests.commands import ROOT, call, interpret, start

if TYPE_CHECKING:
    import subprocess

    from bench.run.config import RunConfig

PYTHON_M_BENCH = [sys.executable, "-m", "bench"]
WINNOW = Path(sys.executable).with_name("winnow")
DIGITS = ["run", "--defense", "kwta", "--attacks", "all", "--n", "10", "--eps", "0.1"]


def figures(folder: Path) -> str:
    """The only run's tables in a folder of runs."""
    return (folder / "leaderboard.md").read_text()


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
    assert "cells" in done.stderr
    assert "ETA" in done.stderr
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--defense", "kwat"], "unknown defense 'kwat'; did you mean 'kwta'"),
        (["run", "--defense", "kwta", "--attacks", "sqare"], "did you mean 'square'"),
        (["run", "--defense", "kwta", "--dataset", "digts"], "did you mean 'digits'"),
        (["run", "--defense", "kwta[gama=1]"], "did you mean 'gamma'"),
        (["run", "--defense", "kwta[gamma=7]"], "gamma"),
        (["run", "--defense", "kwta", "--eps", "0"], "greater than 0"),
        (["run", "--defense", "kwta", "--eps", "8/0"], "not a number"),
        (["run", "--defense", "kwta", "--eps", "8"], "did you mean 8/255"),
        (["run", "--defense", "kwta", "--n", "0"], "--n has to be at least 1"),
        (["run", "--defense", "kwta", "--n", "100000"], "599"),
        (["run", "--defense", "kwta", "--norm", "L3"], "unknown norm"),
        (["run", "--defense", "kwta", "--device", "tpu"], "unknown device"),
        (["run", "--defense", "kwta", "--checkpoint", "kwta=/nowhere"], "no checkpoint at"),
        (["run", "--defense", "kwta", "--checkpoint", "kwta-at=x"], "not among the defenses"),
        (["run", "--defense", "kwta", "--checkpoint", "relu=x"], "no checkpoint at x"),
        (["run", "--defense", "kwta", "--out", "/proc/nowhere"], "cannot write"),
        (["run", "--defense", "kwta[gamma=0.3]"], "python -m bench train --defense"),
        (["run", "--defense", "kwta", "--dataset", "parquet:nowhere.parquet"], "nowhere"),
        (["verify", "nowhere"], "unknown run in results/runs 'nowhere'"),
        (["verify", "latest", "--recompute", "2%"], "--recompute has to be a fraction"),
        (["report", "--publish"], "name the runs to publish"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_one_line_with_exit_code_2(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    """No traceback, what to do, and nothing written."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    errors = [e for e in capsys.readouterr().err.splitlines() if not e.startswith("loading")]
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not list(tmp_path.iterdir())


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


def test_a_dry_run_prints_the_plan_and_its_cost_and_writes_nothing(tmp_path: Path) -> None:
    """What is attacked alike in a line, the passes, and no folder."""
    out = tmp_path / "runs"
    done = call(
        "run", "--defense", "relu,kwta", "--attacks", "pgd,gaussian-noise", "--dry-run",
        "--no-examine", "--n", "20", "--workers", "0", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "  1 attack(s): pgd\n" in done.stdout
    assert "  relu, kwta × 1 of them @ 0.05, 0.1, 0.15, 0.2\n" in done.stdout
    skipped = "searches in L2 only (relu × gaussian-noise, kwta × gaussian-noise)"
    assert f"  skipped: {skipped}\n" in done.stdout
    assert "10 of 18 cells can run" in done.stdout  # with the clean predictions of both
    assert "backward passes" in done.stdout
    assert "expected by a pilot on 10 examples" in done.stdout
    assert not out.exists()


def test_json_is_the_summary(tmp_path: Path) -> None:
    """Standard output is `summary.json` and nothing else."""
    done = call(
        "run", "--defense", "relu", "--attacks", "fgsm", "--n", 10, "--workers", 0, "--json",
        "--out", tmp_path,
    )  # fmt: skip
    (path,) = tmp_path.glob("*/summary.json")
    assert json.loads(done.stdout) == json.loads(path.read_text())


@pytest.mark.parametrize(
    ("words", "examine"),
    [
        ([], True),
        (["--examine", "headline"], True),
        (["--examine", "each"], "each"),
        (["--examine", "none"], False),
        (["--no-examine"], False),
        (["--examine", "none", "--no-examine"], False),
    ],
)
def test_options_of_the_examination_are_those_of_the_run(
    monkeypatch: pytest.MonkeyPatch, words: list[str], examine: object
) -> None:
    """Each way to write them, and the headline beside them."""
    asked: list[RunConfig] = []

    def once(config: RunConfig, _: object) -> list[types.SimpleNamespace]:
        asked.append(config)
        return [types.SimpleNamespace(failed=False)]

    monkeypatch.setattr(sys.modules["bench.cli.run"], "_run_once", once)
    done = CliRunner().invoke(app, ["run", "--defense", "relu", "--headline", "8/255", *words])
    assert done.exit_code == 0, done.output
    assert [(config.examine, config.headline) for config in asked] == [(examine, "8/255")]


def test_where_to_examine_is_said_on_the_command_line(tmp_path: Path) -> None:
    """`--headline` ranks, `--examine none` leaves it out; what cannot be is told in one line."""
    shared = ["run", "--defense", "relu", "--attacks", "fgsm", "--n", 10, "--workers", 0]
    shared += ["--eps", "0.05,0.1", "--out", tmp_path / "runs"]
    refused = call(*shared, "--headline", "0.2")
    assert refused.returncode == 2, refused.stderr
    assert "the headline epsilon 0.2 is none of the run's (0.05, 0.1)" in refused.stderr
    words = ["run", "--defense", "relu", "--examine"]
    both = CliRunner().invoke(app, [*words, "each", "--no-examine"])
    assert isinstance(both.exception, UsageError)
    assert "exclude each other" in str(both.exception)
    assert CliRunner().invoke(app, [*words, "all"]).exit_code == 2
    done = call(*shared, "--examine", "none", "--headline", "1/20", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["headline"] == "0.05"
    worst = summary["defenses"]["relu"]["worst_case"]
    assert {entry["verdict"] for entry in worst.values()} == {"not examined"}


def test_a_failed_cell_exits_with_1(tmp_path: Path) -> None:
    """A plugin that raises fails its cell, is shown, and leaves the other attack alone."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import sys\n"
        "from bench.api import Attack, Cost\n"
        "from bench.registry import register_attack\n\n"
        "@register_attack('broken')\n"
        "class Broken(Attack):\n"
        "    summary = 'raises'\n\n"
        "    def cost(self, *, norm, shape, classes):\n"
        "        return Cost(1)\n\n"
        "    def run(self, problem):\n"
        "        raise RuntimeError('no luck')\n\n"
        "if __name__ == '__main__':\n"
        "    from bench.cli import main\n"
        "    main()\n"
    )
    done = call(
        plugin, "run", "--defense", "relu", "--attacks", "broken,fgsm", "--n", 10, "--eps", "0.1",
        "--workers", 0, "--out", tmp_path, kind="file",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "broken @ 0.1 failed: RuntimeError: no luck" in done.stdout
    assert "failed: relu × broken @ 0.1: RuntimeError: no luck" in done.stderr
    assert next(tmp_path.glob("*/errors/*.txt")).read_text().count("Traceback") == 1
    assert "| fgsm |" in done.stdout


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["list"]])
def test_help_and_list_do_not_import_torch(arguments: list[str]) -> None:
    """What makes them instant."""
    code = (
        "import sys\n"
        f"sys.argv = ['bench', *{arguments!r}]\n"
        "from bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'torchvision', 'foolbox', 'sklearn', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = interpret([sys.executable, "-c", code])
    assert done.returncode == 0, done.stderr


def test_list_names_everything() -> None:
    """Defenses, attacks with their options, suites, data sets."""
    text = call("list").stdout
    for name in ("kwta-at[", "apgd-t", "pgd[", "brendel-bethge", "  all\n", "parquet:PATH"):
        assert name in text


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
