"""What the command line takes and how it answers: mistakes, options, plans, JSON, failures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bench.cli import app, main
from bench.errors import UsageError
from tests.commands import ROOT, call, interpret

if TYPE_CHECKING:
    from pathlib import Path

    from bench.run.config import RunConfig


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


#: A command whose standard output is another descriptor.
ELSEWHERE = """
import os, sys
{made}
os.dup2(made, 1)
sys.argv = ["bench", *{words}]
from bench.cli import main
try:
    main()
finally:
    sys.stderr.flush()  # as Python does at the end
    sys.stdout.flush()
"""


@pytest.mark.parametrize("words", [["list"], ["list", "--json"], ["run", "--help"], ["--help"]])
def test_a_closed_output_is_no_failure(words: list[str]) -> None:
    """As of a command that SIGPIPE ended: 1 would say that something does not hold."""
    made = "reader, made = os.pipe(); os.close(reader)"
    done = call(ELSEWHERE.format(made=made, words=words), kind="source")
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("words", [["list"], ["--version"]])
def test_a_full_output_is_told_in_one_line(words: list[str]) -> None:
    """What answers is lost, and it is said."""
    made = "made = os.open('/dev/full', os.O_WRONLY)"
    done = call(ELSEWHERE.format(made=made, words=words), kind="source")
    said = "error: cannot write the output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_closed_standard_error_ends_a_command_alike(tmp_path: Path) -> None:
    """What a note is written to may be the same pipe: no plugin ended it."""
    made = "reader, made = os.pipe(); os.close(reader); os.dup2(made, 2)"
    words = ["run", "--defense", "kwta", "--attacks", "fgsm", "--n", "5"]
    done = call(ELSEWHERE.format(made=made, words=words), kind="source", cwd=tmp_path)
    assert done.returncode == 141


@pytest.mark.whole
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_streams_that_were_closed_before_are_no_failure(closed: str, tmp_path: Path) -> None:
    """As under a service: what is stored is what the same command stores with them."""
    words = ["run", "--defense", "relu", "--attacks", "fgsm", "--n", "4", "--eps", "0.1",
             "--no-examine", "--no-twins", "--workers", "1"]  # fmt: skip
    done = [
        subprocess.run(
            ["sh", "-c", f'exec "$@" {streams}', "sh", sys.executable, "-m", "bench", *words,
             "--out", str(tmp_path / name)],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=tmp_path, timeout=120,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ).returncode
        for name, streams in (("closed", closed), ("open", ""))
    ]  # fmt: skip
    stored = [sorted(tmp_path.glob(f"{name}/*/leaderboard.md")) for name in ("closed", "open")]

    assert done == [0, 0]
    assert [len(paths) for paths in stored] == [1, 1]
    assert stored[0][0].read_bytes() == stored[1][0].read_bytes()
