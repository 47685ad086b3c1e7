"""A run's folder that was changed, and made consistent: found, or never called proven."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from bench.cli import app
from bench.errors import WinnowError
from bench.record.files import canonical_json, read_json
from bench.run.verification import verify_run
from tests.run.forgeries import EXAMINED, FORGERIES, RECORDED
from tests.run.forging import SOURCE, Forger, Silent, small_run
from tests.run.tampering import hidden_examples
from tests.toy_models import Sum

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `Sum`, not examined: 75 % robust at 0.01."""
    return small_run(Sum(), tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `Silent`, examined and called unreliable."""
    return small_run(Silent(), tmp_path_factory.mktemp("masked"), examine=True)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the models."""
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def of_a_file(tmp_path_factory: pytest.TempPathFactory, source: Path) -> Path:
    """A run of a file's own model on a data set that everybody has."""
    out = tmp_path_factory.mktemp("of-a-file")
    app(
        ["run", "--defense", f"file:{source}:Zeros", "--attacks", "fgsm", "--n", "4", "--eps",
         "0.1", "--workers", "0", "--no-examine", "--out", str(out)],
        standalone_mode=False,
    )  # fmt: skip
    (path,) = out.glob("*/run.json")
    return path.parent


@pytest.fixture(autouse=True)
def _same_commit(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever commits while the tests run has other software than the runs were made with."""
    made_by = read_json(plain / "run.json")["provenance"]["commit"]
    monkeypatch.setattr("bench.run.verification.claims._commit_here", lambda: made_by)


def forged(run: Path, place: Path, forge: Callable[[Forger], None]) -> Path:
    """A copy of a run, forged, with all files rewritten that follow."""
    folder = shutil.copytree(run, place / run.name)
    forger = Forger(folder)
    forge(forger)
    forger.rewrite()
    return folder


def found_in(run: Path, source: Path, model: str = "Sum") -> list[str]:
    """The faults of a run, or the one line that refuses it."""
    try:
        return verify_run(run, model=f"{source}:{model}", device="cpu").faults
    except WinnowError as error:
        return [str(error)]


@pytest.mark.parametrize("name", FORGERIES)
def test_a_consistent_forgery_is_found(
    name: str, plain: Path, source: Path, tmp_path: Path
) -> None:
    """With a fault that names it, whatever else was written to match."""
    forge, expected = FORGERIES[name]
    faults = found_in(forged(plain, tmp_path, forge), source)
    assert any(expected in fault for fault in faults), faults


def say(name: str, change: Callable[[Any], Any]) -> Callable[[Forger], None]:
    """Change a file that follows, after all others were written."""

    def forge(forger: Forger) -> None:
        path = forger.folder / name
        path.write_bytes(canonical_json(change(read_json(path))))

    return forge


def calm(evidence: Any) -> Any:
    """Every test passes."""
    return {name: [{**item, "status": "pass"} for item in own] for name, own in evidence.items()}


def credible(summary: Any) -> Any:
    """The verdict is another."""
    part = summary["defenses"]["model"]
    part["verdict"]["level"] = "credible"
    part["worst_case"]["0.01"]["verdict"] = "credible"
    return summary


@pytest.mark.parametrize("name", EXAMINED)
def test_a_forged_examination_is_found(
    name: str, masked: Path, source: Path, tmp_path: Path
) -> None:
    """Cells that its evidence needs, and where it was made."""
    forge, expected = EXAMINED[name]
    faults = found_in(forged(masked, tmp_path, forge), source, "Silent")
    assert any(expected in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("name", "change", "path"),
    [
        ("evidence.json", calm, "model"),
        ("summary.json", credible, "verdict.level"),
        ("summary.json", lambda summary: summary | {"headline": "0.005"}, "headline"),
        ("summary.json", lambda summary: summary | {"n": 8.0}, "n"),
    ],
)
def test_what_follows_is_found_where_it_was_changed(
    name: str, change: Callable[[Any], Any], path: str, masked: Path, source: Path, tmp_path: Path
) -> None:
    """Evidence, verdict and figures, the manifest rewritten."""
    folder = shutil.copytree(masked, tmp_path / masked.name)
    forger = Forger(folder)
    say(name, change)(forger)
    forger.rewrite_manifest()
    faults = found_in(folder, source, "Silent")
    assert any(name in fault and path in fault for fault in faults), faults


def test_a_run_that_hides_everything_is_not_called_proven(source: Path, tmp_path: Path) -> None:
    """Every outcome unbroken and every example gone: the figure is an upper bound, and says so."""
    run = small_run(Sum(), tmp_path / "run", attacks="test-best", epsilons=["0.01"])
    told = verify_run(
        forged(run, tmp_path, hidden_examples), model=f"{source}:Sum", device="cpu"
    ).to_json()
    assert (told["verified"], told["faults"]) == (True, [])
    (bound,) = (claim for claim in told["recorded_not_proven"] if claim.startswith("unbroken"))
    assert bound.endswith("a robust accuracy is an upper bound")


@pytest.mark.parametrize("name", RECORDED)
def test_what_cannot_be_shown_is_never_called_proven(
    name: str, plain: Path, source: Path, tmp_path: Path
) -> None:
    """The run holds, and says of what was changed that it is recorded and not proven."""
    forge, words = RECORDED[name]
    folder = forged(plain, tmp_path, forge)
    told = verify_run(folder, model=f"{source}:Sum", device="cpu").to_json()
    assert (told["verified"], told["faults"]) == (True, [])
    assert any(words in claim for claim in told["recorded_not_proven"])
    assert not any(words in claim for claim in told["proven"])


def test_the_command_says_what_is_proven_and_what_is_not(
    plain: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words and as JSON, with exit code 1 where something does not hold."""
    words = ["verify", str(plain), "--model", f"{source}:Sum", "--device", "cpu"]
    words += ["--recompute", "0"]
    app(words, standalone_mode=False)
    first, *lines, last = capsys.readouterr().out.splitlines()
    assert first.startswith("verified: ")
    assert last == "no shard was computed again"
    assert {line.split(": ")[0] for line in lines} == {"proven", "recorded, not proven"}

    app([*words, "--json"], standalone_mode=False)
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["faults"], told["notes"]) == (True, [], [])
    assert len(told["proven"]) + len(told["recorded_not_proven"]) == len(lines)
    assert told["files"] > told["examples"] > 0

    folder = forged(plain, tmp_path, hidden_examples)
    assert app(["verify", str(folder), *words[2:], "--json"], standalone_mode=False) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["proven"]) == (False, [])
    assert told["faults"]


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of committed weights on a data set that everybody has."""
    out = tmp_path_factory.mktemp("committed")
    app(
        ["run", "--defense", "kwta", "--attacks", "fgsm", "--n", "4", "--eps", "0.1", "--workers",
         "1", "--no-examine", "--out", str(out)],
        standalone_mode=False,
    )  # fmt: skip
    (path,) = out.glob("*/run.json")
    return path.parent


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("dataset.class_names", [f"class {i}" for i in range(10)], "dataset.class_names is"),
        ("dataset.name", "ImageNet", "dataset.name is 'ImageNet'"),
        ("dataset.family", "mnist", "dataset.family is 'mnist'"),
        ("defenses.kwta.twin", None, "its twin is 'relu'"),
        ("defenses.kwta.key", "0" * 16, "its key is"),
        ("defenses.kwta.published", {"epsilon": "0.1", "robust_accuracy": 0.9}, "its published"),
        ("provenance.date", "1999-01-01", ""),
    ],
)
def test_what_data_and_plugins_say_of_themselves_is_compared(
    key: str, value: Any, expected: str, committed: Path, tmp_path: Path
) -> None:
    """Names, families, twins and published figures are not the run's to choose; its date is."""

    def forge(forger: Forger) -> None:
        with forger.record() as content:
            *way, last = key.split(".")
            part = content
            for word in way:
                part = part[word]
            part[last] = value

    faults = verify_run(forged(committed, tmp_path, forge), device="cpu").faults
    assert any(expected in fault for fault in faults) if expected else faults == []


@pytest.mark.parametrize(
    ("key", "value"),
    [("network", "wideresnet-70-16"), ("twin", "relu"), ("published", {"epsilon": "0.1"})],
)
def test_what_a_file_s_defense_cannot_have_is_found(
    key: str, value: Any, of_a_file: Path, source: Path, tmp_path: Path
) -> None:
    """Its network is its function; it has no twin, and nobody published anything of it."""
    (name,) = read_json(of_a_file / "run.json")["defenses"]

    def forge(forger: Forger) -> None:
        with forger.record() as content:
            content["defenses"][name][key] = value

    faults = found_in(forged(of_a_file, tmp_path, forge), source, "Zeros")
    assert any(fault.startswith(f"{name}: its {key} is ") for fault in faults), faults
    findings = verify_run(of_a_file, model=f"{source}:Zeros", device="cpu")
    assert findings.faults == []
    assert f"what the file and function of {name} are called" in findings.recorded


@pytest.mark.parametrize(
    ("key", "value", "dataset"),
    [
        ("name", "ImageNet", "digits"),
        ("family", "imagenet", "digits"),
        ("source", "folder:/data/imagenet", "digits"),
        ("notes", ["the hardest of the test split"], "digits"),
        ("notes", ["the hardest of the test split"], ""),
    ],
)
def test_what_the_data_are_called_is_not_proven_where_it_differs(
    key: str, value: Any, dataset: str, committed: Path, tmp_path: Path
) -> None:
    """Proven is what the data are that were loaded; of the rest the run's word is recorded."""

    def forge(forger: Forger) -> None:
        with forger.record() as content:
            content["dataset"][key] = value

    folder = forged(committed, tmp_path, forge)
    findings = verify_run(folder, dataset=dataset, device="cpu")
    assert findings.faults == []
    assert findings.proven[0].startswith("data: digits, digest")
    assert any(note.startswith(f"run.json: dataset.{key} is") for note in findings.notes)
    assert any(claim.startswith(f"dataset.{key}: ") for claim in findings.recorded)
