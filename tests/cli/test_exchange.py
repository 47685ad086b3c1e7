"""import-adversarial, compare, export and runs, as commands on digits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.cli import app, main
from bench.data import open_dataset, subset
from bench.record.files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

N = 6


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """A command in this process; its standard output."""
    app([*map(str, arguments)], standalone_mode=False)
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FGSM against k-WTA and against ReLU, each a run of its own; files of candidates beside."""
    folder = tmp_path_factory.mktemp("exchange")
    for defense in ("kwta", "relu"):
        app(
            ["run", "--defense", defense, "--attacks", "fgsm", "--n", str(N), "--no-examine",
             "--eps", "0.1", "--workers", "0", "--out", str(folder / "runs")],
            standalone_mode=False,
        )  # fmt: skip
    examples = subset(open_dataset("digits").load("test"), N)
    inverted = 1 - examples.inputs.numpy()
    np.savez(folder / "inverted.npz", adversarial=inverted)
    np.savez(folder / "two.npz", adversarial=inverted[:2], index=np.array([4, 1]))
    return folder


#: A model that takes no white image.
DARK = """
import torch


class Dark(torch.nn.Sequential):
    def forward(self, x):
        if (x > 0.99).flatten(1).all(dim=1).any():
            raise RuntimeError("too bright")
        return super().forward(x)


def load():
    torch.manual_seed(0)
    return Dark(torch.nn.Flatten(), torch.nn.Linear(64, 10))
"""


def run_of(stored: Path, defense: str) -> Path:
    """The folder of a defense's run."""
    (found,) = [
        path.parent
        for path in (stored / "runs").glob("*/run.json")
        if list(read_json(path)["defenses"]) == [defense]
    ]
    return found


def test_candidates_extend_the_run_that_is_there(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same id, same command to continue it; the worst case holds both; it verifies."""
    folder = run_of(stored, "kwta")
    before = read_json(folder / "run.json")

    printed = call(
        capsys, "import-adversarial", stored / "inverted.npz", "--defense", "kwta", "--eps", "1",
        "--out", stored / "runs", "--json",
    )  # fmt: skip

    found = json.loads(printed)
    after = read_json(folder / "run.json")
    assert found["run"] == folder.name
    assert after["epsilons"] == ["0.1", "1"]
    assert after["status"] == "complete"
    assert after["provenance"]["command"] == before["provenance"]["command"]
    part = found["summary"]["defenses"]["kwta"]
    critical = part["critical"]
    for item in found["judged"]:
        robust = sum(d is None or d > float(item["epsilon"]) + 1e-6 for d in critical)
        assert part["worst_case"][item["epsilon"]]["robust_accuracy"] == robust / N
    assert set(part["attacks"]) == {"fgsm", "external:inverted"}
    assert not part["worst_case"]["1"]["complete"]  # FGSM did not run there
    assert "\nverified:" in call(capsys, "verify", folder)


def test_candidates_by_themselves_make_a_run(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two of six examples: no row, but a worst case, and the same again when asked again."""
    arguments = [
        "import-adversarial", stored / "two.npz", "--defense", "relu", "--n", N, "--eps", "0.1",
        "--out", tmp_path,
    ]  # fmt: skip
    first = call(capsys, *arguments, "--json")
    (folder,) = (path.parent for path in tmp_path.glob("*/run.json"))

    judged = json.loads(first)["judged"]
    assert [item["candidates"] for item in judged] == [2]
    assert json.loads(call(capsys, *arguments, "--json"))["judged"] == judged
    assert "\nverified:" in call(capsys, "verify", folder)


@pytest.mark.parametrize("step", [1, -1])
def test_candidates_in_another_order_are_asked_about(
    step: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nearly all of them lie far from the example that they are taken for."""
    inputs = subset(open_dataset("digits").load("test"), N).inputs.numpy()
    np.savez(tmp_path / "mine.npz", adversarial=inputs[::step])

    printed = call(
        capsys, "import-adversarial", tmp_path / "mine.npz", "--defense", "relu", "--n", N,
        "--eps", "0.05,0.1", "--out", tmp_path / "runs",
    )  # fmt: skip

    assert ("lie farther from their example than 0.1" in printed) == (step < 0)


def test_candidates_that_nobody_could_judge_leave_an_empty_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that raises on each of them: exit code 1, and no traceback."""
    (tmp_path / "dark.py").write_text(DARK)
    np.savez(tmp_path / "white.npz", adversarial=np.ones((N, 1, 8, 8), dtype=np.float32))
    command = [
        "winnow", "import-adversarial", tmp_path / "white.npz", "--n", N, "--eps", "1",
        "--defense", f"file:{tmp_path / 'dark.py'}:load", "--out", tmp_path / "runs",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", [str(word) for word in command])

    with pytest.raises(SystemExit) as exit_info:
        main()

    assert exit_info.value.code == 1
    printed = capsys.readouterr()
    assert "judged by Winnow" in printed.out
    assert "Traceback" not in printed.err


def test_an_interrupted_run_stays_interrupted(
    stored: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What its own command left is still to do."""
    folder = run_of(stored, "relu")
    record = read_json(folder / "run.json")
    write_json(folder / "run.json", {**record, "status": "interrupted"})

    call(
        capsys, "import-adversarial", stored / "two.npz", "--defense", "relu", "--n", N,
        "--name", "late", "--out", stored / "runs",
    )  # fmt: skip

    assert read_json(folder / "run.json")["status"] == "interrupted"
    shown = call(capsys, "runs", "show", folder.name[:8], "--out", stored / "runs")
    assert f"Continue it: `{record['provenance']['command']}`" in shown


def test_one_name_is_one_file(
    stored: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other contents by a name that the run knows are refused, and nothing changes."""
    arguments = ["--defense", "kwta", "--n", N, "--name", "twice", "--out", stored / "runs"]
    call(capsys, "import-adversarial", stored / "inverted.npz", *arguments)
    before = (run_of(stored, "kwta") / "manifest.json").read_bytes()
    command = ["winnow", "import-adversarial", stored / "two.npz", *arguments]
    monkeypatch.setattr("sys.argv", [str(word) for word in command])

    with pytest.raises(SystemExit) as exit_info:
        main()

    assert exit_info.value.code == 2
    assert "give another --name" in capsys.readouterr().err
    assert (run_of(stored, "kwta") / "manifest.json").read_bytes() == before


def test_runs_are_compared_exported_listed_and_removed(
    stored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the beginnings of their ids."""
    runs = stored / "runs"
    kwta, relu = (run_of(stored, name) for name in ("kwta", "relu"))

    text = call(capsys, "compare", kwta.name[:10], relu, "--defense", "kwta,relu", "--out", runs)
    assert "## kwta and relu" in text
    found = call(capsys, "compare", kwta, relu, "--defense", "kwta,relu", "--json", "--out", runs)
    assert json.loads(found)["n"] == N
    written = call(
        capsys, "export", relu.name[:10], "--robustbench", "--hf", "--csv", "--json",
        "--out", runs, "--to", tmp_path, "--info", "authors=Somebody",
    ).split()  # fmt: skip
    assert len(written) == 4
    assert read_json(tmp_path / "model_info/digits/Linf/relu.json")["authors"] == "Somebody"
    listed = json.loads(call(capsys, "runs", "list", "--out", runs, "--json"))
    assert {item["run"] for item in listed} == {kwta.name, relu.name}
    assert "without --yes" in call(capsys, "runs", "clean", kwta.name, "--out", runs)
    assert kwta.is_dir()
    assert "removed" in call(capsys, "runs", "clean", kwta.name, "--out", runs, "--yes")
    assert not kwta.exists()
    assert "### kwta" not in (runs / "leaderboard.md").read_text()
