"""`figure` on the command line: each kind once, and what is refused."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tests.plugins  # noqa: F401 - registers the attacks
from bench import cli
from bench.errors import CheckpointError, DataError, StoreError, UsageError
from bench.figures import activations
from tests.toy_models import Sum, attack_only, linear_examples

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one stored run."""
    out = tmp_path_factory.mktemp("runs")
    x = linear_examples()
    attack_only(Sum(), x.inputs, x.labels, epsilons=["0.02", "0.04"], attacks="test-best", out=out)
    return out


def figure(*arguments: str | Path) -> tuple[int, str]:
    """Exit code and standard output; errors are raised."""
    result = CliRunner().invoke(cli.app, ["figure", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.stdout


@pytest.mark.parametrize(
    ("kind", "arguments", "column", "entries"),
    [
        ("activations", ["--activation", "relu,kwta[k=1]"], "unit", 12),
        ("fit", ["--seed", "1"], "series", 4),
        (
            "landscape",
            ["--defense", "relu,kwta", "--example", "5", "--range", "1/10", "--steps", "2"],
            "defense",
            2,
        ),
        ("units", ["--defense", "kwta", "--n", "2", "--steps", "3"], "defense", 1),
        ("curve", ["RUN", "--attacks", "test-best"], "attack", 2),
    ],
)
def test_each_kind_writes_its_pictures_and_its_numbers(
    tmp_path: Path,
    runs: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    arguments: list[str],
    column: str,
    entries: int,
) -> None:
    """Three files, named on standard output; the table is one row for each point."""
    monkeypatch.setattr(activations, "STEPS", 5)
    monkeypatch.setattr(activations, "GRID", 100)
    (run,) = (path.parent for path in runs.glob("*/summary.json"))
    given = [run if argument == "RUN" else argument for argument in arguments]

    code, output = figure(kind, *given, "--out", tmp_path / "sub" / kind)

    assert code == 0
    paths = [tmp_path / "sub" / f"{kind}.{ending}" for ending in ("png", "svg", "csv")]
    assert output.split() == [str(path) for path in paths]
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    with paths[2].open() as file:
        rows = list(csv.DictReader(file))
    assert len({row[column] for row in rows}) == entries


def test_the_same_command_gives_the_same_bytes(tmp_path: Path) -> None:
    """Random directions, surfaces and all."""
    files = []
    for name in ("a", "b"):
        figure(
            "landscape", "--defense", "kwta", "--steps", "2", "--seed", "7",
            "--out", tmp_path / name / "plot.svg",
        )  # fmt: skip
        files.append([p.read_bytes() for p in sorted((tmp_path / name).iterdir())])

    assert len(files[0]) == 2
    assert files[0] == files[1]


def test_without_a_place_it_goes_to_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`results/figures/KIND` under the current directory."""
    monkeypatch.chdir(tmp_path)

    figure("activations", "--activation", "relu")

    names = {path.name for path in (tmp_path / "results" / "figures").iterdir()}
    assert names == {"activations.png", "activations.svg", "activations.csv"}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["activations", "--out", "plot.pdf"], UsageError, "written as .png and .svg"),
        (["activations", "--activation", "kwat"], UsageError, "did you mean 'kwta'"),
        (["landscape", "--example", "599"], UsageError, "--example has to be less than 599"),
        (["landscape", "--range", "8"], UsageError, "did you mean 8/255"),
        (["landscape", "--device", "tpu"], UsageError, "unknown device 'tpu'"),
        (["landscape", "--checkpoint", "relu"], UsageError, "--checkpoint wants NAME=PATH"),
        (
            ["landscape", "--checkpoint", "relu=a", "--checkpoint", "relu=b"],
            UsageError,
            "names two files for relu, a and b",
        ),
        (["units", "--checkpoint", "kwta=none"], CheckpointError, "no checkpoint at none"),
        (["units", "--n", "600"], DataError, "n has to be between 1 and 599"),
        (["curve", "nowhere"], StoreError, "no summary.json in nowhere"),
    ],
)
def test_mistakes_are_refused_and_nothing_is_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    error: type[UsageError],
    message: str,
) -> None:
    """Each in words that say what to do."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=re.escape(message)):
        figure(*arguments)

    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_exits_with_130(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As every verb does."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(activations, "apply", interrupted)

    code, output = figure("activations", "--out", tmp_path / "plot")

    assert (code, output) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_help_imports_nothing_heavy() -> None:
    """What makes it quick; it names every kind."""
    code = (
        "import sys\n"
        "sys.argv = ['bench', 'figure', '--help']\n"
        "from bench.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'pandas'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    for kind in ("activations", "fit", "landscape", "units", "curve"):
        assert f"  {kind} " in done.stdout
