"""What others read: RobustBench's loader itself, where installed, and files."""

from __future__ import annotations

import importlib.util
import json
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import StoreError, UnknownNameError, UsageError
from bench.record.files import canonical_json
from bench.report.exchange import export_run, file_stems, model_card
from bench.report.robustbench import autoattack_accuracy, parse_info, robustbench_info
from tests.report.summaries import NAME, ROWS, cell, summary
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from pathlib import Path


def test_model_info_says_what_the_run_knows() -> None:
    """Accuracies are strings in percent; what nobody said is empty; the evidence is named."""
    info = robustbench_info(summary(), NAME, "8/255")

    footnote = info.pop("footnote")
    assert info == {
        "link": "",
        "name": NAME,
        "authors": "",
        "additional_data": None,
        "number_forward_passes": None,
        "dataset": "cifar10",
        "venue": "",
        "architecture": "resnet18 &lt;b&gt;",
        "eps": "8/255",
        "clean_acc": "90.00",
        "autoattack_acc": "40.00",
        "external": "34.50",
        "unreliable": True,
    }
    for said in ("run 0123456789abcdef", "200 examples", "34.5 (28.0–41.0)", "Verdict: unreliable"):
        assert said in footnote
    assert "x &lt; y" in footnote
    assert "Failed tests: gradient-fidelity." in footnote


@pytest.mark.parametrize(
    ("verdict", "expected"),
    [
        ("credible", False),
        ("broken", False),
        ("suspect", True),
        ("unreliable", True),
        ("not examined", None),
        (None, None),
    ],
)
def test_unreliable_follows_from_the_verdict(verdict: str | None, expected: bool | None) -> None:
    """Any doubt is told; without an examination nothing is."""
    content = summary(verdict=None)
    content["defenses"][NAME]["worst_case"]["8/255"]["verdict"] = verdict

    assert robustbench_info(content, NAME, "8/255").get("unreliable") is expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, 0.4),
        ({"suites": {}}, None),
        ({"suites": {"standard": {"8/255": {"robust_accuracy": 0.4, "attacks": ROWS[:3]}}}}, None),
        ({"suites": {"standard": {"4/255": {"robust_accuracy": 0.4, "attacks": ROWS}}}}, None),
        ({"suites": {}, "attacks": {"autoattack": {"8/255": cell(scope="remaining")}}}, 0.5),
        (
            {"suites": {}, "attacks": {"autoattack": {"8/255": cell(attacked=179)}}},
            None,
        ),
        ({"suites": {}, "attacks": {"autoattack": {"8/255": cell(status="failed")}}}, None),
    ],
)
def test_autoattack_is_claimed_where_it_attacked_everything(
    changed: dict[str, Any], expected: float | None
) -> None:
    """All four rows together, or a cascade from which nothing was taken before."""
    content = summary(**changed)

    assert autoattack_accuracy(content, NAME, "8/255") == expected
    assert ("autoattack_acc" in robustbench_info(content, NAME, "8/255")) == (expected is not None)


def test_the_standard_version_is_not_claimed_of_a_randomised_defense() -> None:
    """AutoAttack has another version for those."""
    content = summary()
    content["defenses"][NAME]["worst_case"]["8/255"]["majority_accuracy"] = 0.4

    assert autoattack_accuracy(content, NAME, "8/255") is None


def test_what_the_authors_say_is_filled_in() -> None:
    """With its types, markup escaped."""
    said = parse_info(
        ["authors=A & B", "reported=52.4", "additional_data=false", "number_forward_passes=1"]
    )
    info = robustbench_info(summary(), NAME, "8/255", said)

    assert info["authors"] == "A &amp; B"
    assert info["reported"] == "52.4"
    assert info["additional_data"] is False
    assert info["number_forward_passes"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("author=me", "did you mean 'authors'"),
        ("authors", "KEY=VALUE"),
        ("additional_data=yes", "true or false"),
        ("number_forward_passes=many", "whole number"),
        ("reported=52,4", "percentage"),
        ("clean_acc=100", "unknown key"),
    ],
)
def test_what_cannot_be_said_is_refused(text: str, message: str) -> None:
    """Figures are the run's alone."""
    with pytest.raises((UsageError, UnknownNameError), match=message):
        parse_info([text])


@pytest.fixture
def robustbench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """RobustBench's own code, `autoattack` stood in for: no PyPI package has that name."""
    if importlib.util.find_spec("robustbench") is None:
        pytest.skip("robustbench is not installed (extra zoo)")
    for name, wanted in (("autoattack", "AutoAttack"), ("autoattack.state", "EvaluationState")):
        stand_in = types.ModuleType(name)
        setattr(stand_in, wanted, None)
        monkeypatch.setitem(sys.modules, name, stand_in)
    return importlib.import_module("robustbench.utils")


def published(folder: Path, content: dict[str, Any]) -> Path:
    """A folder as `report --publish` leaves it."""
    place = folder / str(content["run"])
    place.mkdir(parents=True)
    (place / "summary.json").write_bytes(canonical_json(content))
    return place


def test_robustbench_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, robustbench: Any
) -> None:
    """Its tables, its LaTeX and its bibliography hold the figures of the run."""
    content = summary()
    content["defenses"]["Standard"] = {**content["defenses"][NAME], "clean_accuracy": 0.95}
    export_run(published(tmp_path / "runs", content), tmp_path / "to", ["robustbench"])
    monkeypatch.chdir(tmp_path / "to")

    robustbench.list_available_models("cifar10", "Linf")  # of its own models, `Standard` is one
    table = capsys.readouterr().out
    folder = tmp_path / "to/model_info/cifar10/Linf"
    for path in folder.glob("*.json"):  # its LaTeX sorts by a key that its JSON has where it is
        assert "external" in json.loads(path.read_text())
    latex = robustbench.get_leaderboard_latex("cifar10", "Linf")
    entries, _ = robustbench.get_leaderboard_bibtex("cifar10", "Linf")

    assert "95.00%" in table
    assert "34.50%" in table
    assert latex.count("34.50") == 2
    assert "90.00" in latex
    assert any(NAME in entry for entry in entries)


def test_names_become_files_that_stay_in_their_folder() -> None:
    """No separators, none twice, whatever the names."""
    names = [
        "kwta[gamma=0.2,k=3]",
        "../../up",
        "/etc/passwd",
        "a/b",
        "a b",
        "A-B",
        "..",
        "",
        "ü" * 300,
    ]
    stems = file_stems(names)

    assert stems["kwta[gamma=0.2,k=3]"] == "kwta_gamma-0.2_k-3"
    assert len({stem.lower() for stem in stems.values()}) == len(names)
    for stem in stems.values():
        assert stem not in ("", ".", "..")
        assert "/" not in stem
        assert not stem.startswith((".", "-"))
        assert len(stem) < 120


def test_nothing_is_overwritten_unasked(tmp_path: Path) -> None:
    """One file that is there stops them all; with leave, all are written."""
    place = published(tmp_path / "runs", summary())
    card = tmp_path / "to/huggingface/kwta_gamma-0.2.md"
    card.parent.mkdir(parents=True)
    card.write_text("mine")

    with pytest.raises(UsageError, match=r"kwta_gamma-0\.2\.md is there already; give --overwrite"):
        export_run(place, tmp_path / "to", ["json", "hf"])
    assert card.read_text() == "mine"
    assert not (tmp_path / "to/summary.json").exists()

    written = export_run(place, tmp_path / "to", ["json", "hf"], overwrite=True)
    assert set(written) == {card, tmp_path / "to/summary.json"}
    assert card.read_text() == model_card(summary(), NAME)
    assert json.loads((tmp_path / "to/summary.json").read_text()) == summary()


def test_a_stored_run_exports_its_outcomes(tmp_path: Path) -> None:
    """The CSV has a row per attack, epsilon and example; a changed run is not exported."""
    pandas = pytest.importorskip("pandas")
    examples = linear_examples(6)
    result = attack_only(
        Sum(), examples.inputs, examples.labels, epsilons=["0.02", "0.05"], attacks="fgsm",
        name='=cmd|"x', out=tmp_path / "runs",
    )  # fmt: skip
    assert result.folder is not None

    export_run(result.folder, tmp_path / "to", ["csv"])
    frame = pandas.read_csv(tmp_path / "to/outcomes.csv", keep_default_na=True)
    assert len(frame) == 12
    broken = [bool(b) for b in frame["broken"]]
    assert broken == result.outcomes["broken"].tolist()
    assert set(frame["defense"]) == {"'=cmd|\"x"}  # no formula
    assert frame["distance_linf"].dtype.kind == "f"

    (result.folder / "leaderboard.md").write_text("changed")
    with pytest.raises(StoreError, match=r"leaderboard\.md was changed"):
        export_run(result.folder, tmp_path / "again", ["csv"])


def test_what_cannot_be_exported_is_said(tmp_path: Path) -> None:
    """No form, no outcomes, no such epsilon."""
    place = published(tmp_path / "runs", summary())
    with pytest.raises(UsageError, match="say in which form"):
        export_run(place, tmp_path / "to", [])
    with pytest.raises(StoreError, match="holds no outcomes"):
        export_run(place, tmp_path / "to", ["csv"])
    with pytest.raises(UsageError, match=r"no epsilon 0\.5; it has 8/255"):
        export_run(place, tmp_path / "to", ["robustbench"], epsilon="0.5")
    assert not (tmp_path / "to").exists()
