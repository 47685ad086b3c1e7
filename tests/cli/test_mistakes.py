"""Bad values of every verb: one line that says what to do, exit code 2, and nothing written."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bench.cli import main
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG = "x" * 300
#: Replaced by what `places` made.
RUN, FILE, STORE, NPZ, FOREIGN, TORCH = (
    "{run}",
    "{file}",
    "{store}",
    "{npz}",
    "{foreign}",
    "{torch}",
)

#: A command that would run at once, of which one option is replaced.
RUNNING = {
    "--defense": "kwta", "--attacks": "fgsm", "--eps": "0.1", "--n": "5", "--workers": "1",
    "--examine": "none",
}  # fmt: skip

#: Bad values of `run`, by option.
VALUES = {
    "--n": ["0", "-1", "abc", "1.5", "1e400", "", " ", "nan", "100000", "9" * 30],
    "--seed": ["-1", "x", "1.5", ""],
    "--seeds": ["-1", "a", "0,0", ",", "0,,1", "1.5", "", "0;1"],
    "--batch-size": ["0", "-1", "x", ""],
    "--workers": ["-1", "x"],
    "--shard-size": ["0", "-3", ""],
    "--budget": ["0", "-1", "x", "1e6"],
    "--escalation-budget": ["-5", "x", ""],
    "--eps": ["nan", "inf", "-inf", "1e400", "1e-400", "1e999999999", "0", "-0.1", ",", " ", "8",
              "8/0", "a", "0.1;0.2", "0.1,nan", "/", "1/2/3", "0x1", "8/255/1", "∞"],
    "--norm": ["L3", "", "0", "-inf"],
    "--headline": ["0.5", "x", "nan", "", "0.1,0.2", "1e999999999"],
    "--examine": ["x", "", "HEADLINE "],
    "--sweep": ["x", ""],
    "--dataset": ["", "digts", "digits:", "folder:", "parquet:", f"folder:{LONG}", ":", "digits:x",
                  f"parquet:{LONG}", "folder:a\0b", "folder:/nowhere", "[red]", "DIGITSS"],
    "--defense": ["", ",", ", ,", "kwat", "kwta[", "kwta]", "kwta[gamma]", "kwta[gamma=]",
                  "kwta[gamma=x]", "kwta[gamma=nan]", "kwta[gamma=1e999]", "kwta[gama=1]",
                  "kwta[gamma=0.1,gamma=0.2]", "file:", "file:x", "file:my model, v2.py:f",
                  "file:/nowhere.py:f", "kwta:x", "\0", "kwta\0", LONG, f"file:{LONG}.py:f",
                  "[red]", "[/red]", "\x1b[31mkwta", "file:\ud800.py:f", "KWTAA"],
    "--attacks": ["", ",", "sqare", "pgd[", "pgd[steps=-1]", "pgd[steps=0]", "pgd[steps=x]",
                  "pgd[steps=1e99]", "pgd:x", "external:", "transfer[source=nope]", "FGSMM",
                  "pgd[steps=5,steps=6]", "\x1b[31mx", "fgsm;pgd", "['fgsm']"],
    "--device": ["tpu", "", "cuda:99", "cuda:-1", "cuda:x", "cuda:99999999999", "mps"],
    "--checkpoint": ["", "x", "kwta=", "=x", "kwta=/nowhere", f"kwta={LONG}", "kwta=a\0b",
                     "relu-at=x", f"kwta={FILE}", f"kwta={STORE}"],
    "--out": ["", " ", FILE, "/proc/x", "a\0b", LONG, f"{FILE}/x"],
}  # fmt: skip

#: Whole commands of `run` and of every other verb.
COMMANDS: list[list[str]] = [
    ["nope"], ["--nope"], ["run"], ["run", "--defense"], ["run", "--defense", "kwta", "extra"],
    ["run", "--defense", "kwta", "--n", "5", "--n", "6"],
    ["run", "--defense", "kwta", "--defense", "relu"],
    ["run", "--defense", "kwta", "--twins", "--no-twins"],
    ["run", "--defense", "kwta", "--json", "--json"],
    ["run", "--defense", "kwta", "--nope"],
    ["run", "--defense", "kwta", "--examine", "each", "--no-examine"],
    ["run", "--defense", "kwta", "--dry-run", "--seeds", "0"],
    ["run", "--defense", "kwta", "--dry-run", "--json"],
    ["run", "--defense", "kwta", "--dry-run", "--html"],
    *(["train", "--defense", *rest] for rest in (
        [""], [","], ["nope"], ["relu", "--epochs", "0"], ["relu", "--epochs", "-1"],
        ["relu", "--epochs", "x"], ["relu", "--seeds", "-1"], ["relu", "--seeds", ""],
        ["relu", "--seeds", "a"], ["relu", "--seed", "0", "--seeds", "1"],
        ["relu", "--start", "nope"], ["relu", "--start", ""], ["relu", "--out", FILE],
        ["relu", "--out", ""], ["relu", "--out", "a\0b"], ["relu", "--out", f"{FILE}/x"],
        ["relu", "--out", LONG], ["relu", "--dataset", "x"], ["relu", "--device", "x"],
        ["robustbench:Standard"], ["relu", "--epochs", "1", "--epochs", "2"],
    )),
    ["list", "--models", ""], ["list", "--models", "nope"], ["list", "--models", "kwta"],
    ["list", "--build"], ["list", "x"],
    ["report", RUN], ["report", "--publish"], ["report", "--publish", "/nowhere"],
    ["report", "--publish", FILE], ["report", "--publish", "a\0b"], ["report", "--publish", LONG],
    ["report", "--publish", STORE], ["report", "--publish", RUN, "--published", FILE],
    ["report", "--publish", RUN, "--published", ""], ["report", "--out", FILE],
    ["report", "--html", "/nowhere"], ["report", "--html", LONG], ["report", "--html", "a\0b"],
    ["report", "--out", ""], ["report", "--out", "a\0b"],
    *(["verify", *rest] for rest in (
        [], ["nowhere"], [""], ["\0"], [LONG], [FILE], [RUN, RUN], [RUN, "--device", "x"],
        [RUN, "--model", ""], [RUN, "--model", "a\0b:f"], [RUN, "--checkpoint", "x"],
        [RUN, "--out", ""], ["latest", "--out", FILE], ["latest", "--out", "/nowhere"],
        [RUN, "--device", "cpu", "--device", "cpu"],
    )),
    *(["compare", *rest] for rest in (
        [], [RUN], [RUN, "nowhere"], [RUN, RUN, "--defense", "x"],
        [RUN, RUN, "--defense", "a,b,c"], [RUN, RUN, "--defense", ""],
        [RUN, RUN, "--defense", "model["], ["", ""], [LONG, LONG], ["latest", "latest"],
    )),
    *(["export", *rest] for rest in (
        [], [RUN], [RUN, "--eps", "0.02"], [RUN, "--robustbench", "--eps", "0.5"],
        [RUN, "--robustbench", "--eps", "x"], [RUN, "--robustbench", "--info", "x"],
        [RUN, "--robustbench", "--info", "nope=1"], [RUN, "--robustbench", "--info", "reported=x"],
        [RUN, "--robustbench", "--info", "number_forward_passes=-1"], [RUN, "--info", "name=x"],
        [RUN, "--csv", "--to", FILE], [RUN, "--csv", "--to", ""], [RUN, "--csv", "--to", "a\0b"],
        [RUN, "--csv", "--to", "/proc/x"], [RUN, "--csv", "--to", LONG], ["nowhere", "--csv"],
    )),
    *(["import-adversarial", *rest, "--defense", "kwta"] for rest in (
        [], ["/nowhere"], [FILE], [FOREIGN], [TORCH], [STORE], [""], ["a\0b"], [LONG],
        [NPZ, "--name", ""], [NPZ, "--name", "A B"], [NPZ, "--name", "../x"], [NPZ, "--n", "0"],
        [NPZ, "--n", "2"], [NPZ, "--seed", "-1"], [NPZ, "--eps", "nan"], [NPZ, "--eps", ","],
        [NPZ, "--norm", "x"], [NPZ, "--out", ""], [NPZ, "--out", FILE], [NPZ, "--device", "x"],
        [NPZ, "--dataset", ""], [NPZ, "--checkpoint", "x"], [NPZ, "--defense", "relu"],
    )),
    *(["selftest", *rest] for rest in (
        ["--seeds", ""], ["--seeds", "-1"], ["--seeds", "x"], ["--n", "0"], ["--n", "x"],
        ["--eps", ""], ["--eps", "nan"], ["--eps", ","], ["--eps", "0"], ["--eps", "8"],
        ["--only", ""], ["--only", "nope"], ["--only", ","], ["--workers", "0"],
        ["--n", "100000", "--only", "kwta"], ["x"],
    )),
    *(["check", *rest] for rest in (
        [], ["nope"], ["kwta", "--all"], [""], ["kwta[gama=1]"], ["\0"], ["kwta["], ["--al"],
    )),
    *([verb, *rest] for verb in ("new-defense", "new-attack") for rest in (
        [], [""], ["A"], ["a b"], ["../x"], ["1"], ["-"], ["a" * 300], ["\0"], ["a", "b"],
        ["con.py"], ["é"], ["a--b"], ["a-"],
    )),
    ["new-defense", "kwta"], ["new-attack", "pgd"], ["new-attack", "blocks"],
    *(["figure", *rest] for rest in (
        ["nope"], ["activations", "--activation", ""], ["activations", "--activation", "nope"],
        ["activations", "--out", ""], ["activations", "--out", "x.pdf"],
        ["activations", "--out", "a\0b"], ["activations", "--out", f"{FILE}/x.png"],
        ["fit", "--seed", "-1"], ["fit", "--activation", "x"], ["fit", "--activation", ","],
        ["landscape", "--example", "-1"], ["landscape", "--example", "9999999"],
        ["landscape", "--range", "nan"], ["landscape", "--range", ""],
        ["landscape", "--range", "8"], ["landscape", "--steps", "0"],
        ["landscape", "--defense", ""], ["landscape", "--defense", "x"],
        ["landscape", "--seed", "-1"], ["landscape", "--device", "x"],
        ["landscape", "--dataset", "x"], ["units", "--n", "0"], ["units", "--n", "999999"],
        ["units", "--eps", "0"], ["units", "--eps", "inf"], ["units", "--steps", "-1"],
        ["units", "--checkpoint", "x"], ["curve"], ["curve", "/nowhere"], ["curve", ""],
        ["curve", RUN, "--attacks", "nope"], ["curve", RUN, "--attacks", ","], ["curve", FILE],
        ["curve", "a\0b"], ["curve", LONG],
    )),
    *(["runs", *rest] for rest in (
        ["nope"], ["list", "--out", FILE], ["list", "--out", ""], ["list", "--out", "a\0b"],
        ["list", "--out", LONG], ["show"], ["show", "nowhere"], ["show", ""], ["show", LONG],
        ["show", "\0"], ["clean", "nowhere"], ["clean", ""], ["clean", "/etc"], ["clean", FILE],
        ["clean", "..", "--yes"], ["clean", STORE, "--yes"],
    )),
]  # fmt: skip


def _of_run(option: str, value: str) -> list[str]:
    """`run` with one option changed."""
    words = {key: text for key, text in RUNNING.items() if key != option} | {option: value}
    return ["run", *(word for pair in words.items() for word in pair)]


@functools.cache
def _stored(store: Path) -> dict[str, str]:
    """A stored run, and files that are none."""
    examples = linear_examples(6)
    run = attack_only(
        Sum(), examples.inputs, examples.labels, epsilons="0.02", attacks="fgsm", out=store
    )
    images = np.full((5, 1, 8, 8), 0.5, np.float32)
    (store / "file").write_text("x")
    np.savez(store / "My Adversarial_1.npz", adversarial=images)
    np.savez(store / "foreign.npz", x_adv=images)
    torch.save({"adv_inputs": torch.from_numpy(images)}, store / "torch.pt")
    names = {
        RUN: run.folder, FILE: store / "file", NPZ: store / "My Adversarial_1.npz", STORE: store,
        FOREIGN: store / "foreign.npz", TORCH: store / "torch.pt",
    }  # fmt: skip
    return {name: str(path) for name, path in names.items()}


@pytest.fixture
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands in for the words in braces."""
    return _stored(tmp_path_factory.getbasetemp() / "stored")


@pytest.mark.parametrize(
    "words",
    [_of_run(option, value) for option, values in VALUES.items() for value in values] + COMMANDS,
    ids=lambda words: " ".join(words[-3:]).encode("unicode_escape").decode()[:40],
)
def test_a_bad_value_is_refused_in_one_line(
    words: list[str],
    places: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, no traceback, nothing on standard output, nothing on the disk."""
    for name, path in places.items():
        words = [word.replace(name, path) for word in words]
    before = set(_files(Path(places[STORE])))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(("loading ", "training and"))]
    assert stop.value.code == 2
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert out == ""
    assert not list(tmp_path.iterdir())
    assert set(_files(Path(places[STORE]))) == before


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    """What lies in a folder; of a lock it does not matter when it was held."""
    for path in folder.rglob("*"):
        if path.name != ".lock" and path.is_file():
            yield path, path.stat().st_mtime_ns


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--defense", "kwta"], ["report"], ["verify", "latest"], ["compare", "latest", "x"],
        ["export", "latest", "--csv"], ["runs", "list"], ["runs", "show", "latest"],
        ["runs", "clean"],
    ],
    ids=lambda words: " ".join(words[:2]),
)  # fmt: skip
def test_runs_in_a_file_are_refused_alike(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """By every verb that reads or writes them."""
    out = tmp_path / "file"
    out.write_text("x")
    monkeypatch.setattr(sys, "argv", ["bench", *words, "--out", str(out)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = f"error: {out} is a file, not a folder of runs; say where they are by --out\n"
    assert capsys.readouterr().err == said


def test_a_working_directory_that_was_removed_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is looked for in it."""
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    monkeypatch.setattr(sys, "argv", ["bench", "run", "--defense", "kwta"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    said = "error: the working directory was removed; change to one that is there\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", "5", "--n", "6"], "--n is given 2 times; give it once"),
        (["--n", ""], "--n is empty (got ''); leave it out, or give a value"),
        (["--out", ""], "--out is empty"),
        (["--seed", "-1"], "--seed has to be at least 0 (got -1)"),
        (["--escalation-budget", "-5"], "--escalation-budget has to be at least 0 (got -5)"),
        (["--n", "x"], "Invalid value for '--n': "),
        (["--nope"], "No such option: --nope"),
        (["--eps", "1e999999999"], "epsilon '1e999999999' is not a number"),
        (["--defense", "file:my model, v2.py:f"], "a comma separates defenses"),
    ],
)
def test_the_line_says_what_is_wrong(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    """By the option's name and what was got."""
    monkeypatch.chdir(tmp_path)
    defense = [] if "--defense" in words else ["--defense", "kwta"]
    monkeypatch.setattr(sys, "argv", ["bench", "run", *defense, *words])
    with pytest.raises(SystemExit):
        main()
    assert message in capsys.readouterr().err


def test_no_words_at_all_are_answered_with_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the command and of its groups."""
    for words in ([], ["runs"], ["figure"]):
        monkeypatch.setattr(sys, "argv", ["bench", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        assert stop.value.code in (0, 2)
        shown = capsys.readouterr()
        assert "Usage:" in shown.out + shown.err
