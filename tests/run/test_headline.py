"""A verdict belongs to an epsilon, and to the outcomes that its evidence was gathered on."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING, Any

import pytest

from bench.errors import UsageError
from bench.record.schema import Cell, CellRecord
from bench.record.store import open_run
from bench.report.exchange import export_run
from bench.run import load_results, run
from bench.run.config import RunConfig
from bench.run.evaluation import evaluate
from bench.run.imports import attack_for, with_candidates
from bench.run.prepare import prepare
from bench.run.verification import verify_run
from bench.trust import asked
from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    from pathlib import Path

    from bench.run import Result

pytestmark = pytest.mark.usefixtures("gradients_alone")

EXAMPLES = linear_examples()
UNEXAMINED = "not examined"
evaluated = functools.partial(
    evaluate, Sum(), EXAMPLES.inputs, EXAMPLES.labels, attacks="fgsm,pgd", escalate=False
)


def part(result: Result) -> dict[str, Any]:
    """What the summary says of the model."""
    found: dict[str, Any] = result.summary["defenses"]["model"]
    return found


def words(result: Result) -> dict[str, str]:
    """The verdict at each epsilon."""
    return {epsilon: worst["verdict"] for epsilon, worst in part(result)["worst_case"].items()}


def measured(result: Result) -> set[str]:
    """The epsilons at which gradients were measured."""
    assert result.folder is not None
    _, record = open_run(result.folder)
    return {cell.epsilon for cell in record.cells if cell.attack == "probe-gradients"}


def nothing_is_credible(folder: Path) -> bool:
    """Whether no file that a run leaves, and none that is made of it, says `credible`."""
    export_run(folder, folder / "exports", ["robustbench", "hf", "json"])
    texts = [path for path in folder.rglob("*") if path.suffix in (".json", ".md")]
    return bool(texts) and not any("credible" in path.read_text() for path in texts)


def test_evidence_is_gathered_for_the_headline_alone(tmp_path: Path) -> None:
    """The largest where nothing is said; the others say that they were not examined."""
    result = evaluated(epsilons=["0.005", "0.01"], out=tmp_path)

    assert result.summary["headline"] == "0.01"
    assert words(result) == {"0.005": UNEXAMINED, "0.01": "credible"}
    assert measured(result) == {"0.01"}
    assert part(result)["examinations"] == {}


@pytest.mark.parametrize("chosen", ["0.005", "1/200", 0.005])
def test_a_headline_can_be_chosen(tmp_path: Path, chosen: str | float) -> None:
    """However it is written: it ranks, and evidence is gathered there."""
    result = evaluated(epsilons=["0.005", "0.01"], headline=chosen, out=tmp_path)

    assert result.summary["headline"] == "0.005"
    assert words(result) == {"0.005": "credible", "0.01": UNEXAMINED}
    assert measured(result) == {"0.005"}
    assert "at ε = 0.005 (lowest row" in result.to_markdown()


def test_a_headline_leaves_every_outcome_as_it_is() -> None:
    """It is no part of a cell's key: the same attacks find the same, epsilon by epsilon."""
    usual, other = (
        evaluated(epsilons=["0.005", "0.01"], headline=h, sweep="each") for h in ("0.01", "0.005")
    )

    rows = [{a: part(r)["attacks"][a] for a in ("fgsm", "pgd")} for r in (usual, other)]
    for attack, cells in rows[0].items():
        for epsilon, cell in cells.items():
            assert {**cell, "seconds": 0} == {**rows[1][attack][epsilon], "seconds": 0}
    assert part(usual)["critical"] == part(other)["critical"]


def test_a_headline_has_to_be_one_of_the_run() -> None:
    """Refused before anything is computed, with what can be done; also from the command line."""
    wanted = r"the headline epsilon 0\.3 is none of the run's \(0\.005, 0\.01\): choose one of them"
    with pytest.raises(UsageError, match=wanted):
        evaluated(epsilons=["0.005", "0.01"], headline="0.3")
    with pytest.raises(UsageError, match="none of the run's"):
        prepare(RunConfig(("relu",), epsilons=("0.1",), headline="0.2"))
    with pytest.raises(UsageError, match="examine has to be True, False or 'each'"):
        RunConfig(("relu",), examine="all")  # type: ignore[arg-type]


def test_each_epsilon_can_have_a_verdict_of_its_own(tmp_path: Path) -> None:
    """Evidence is gathered at every one, rows are whole there, and the page shows all of it."""
    result = evaluated(epsilons=["0.005", "0.01", "0.02"], examine="each", out=tmp_path)

    assert measured(result) == {"0.005", "0.01", "0.02"}
    assert set(part(result)["examinations"]) == {"0.005", "0.01"}
    for epsilon, found in part(result)["examinations"].items():
        assert words(result)[epsilon] == found["verdict"]["level"]
        fidelity = next(i for i in found["evidence"] if i["id"] == "gradient-fidelity")
        assert fidelity["status"] != "not run"
    assert UNEXAMINED not in words(result).values()
    for cells in part(result)["attacks"].values():
        assert all(cell["source"] == "attacked" for cell in cells.values())
    page = result.to_markdown()
    assert "**Verdict at ε = 0.005: credible.**" in page
    assert "Evidence at ε = 0.01: " in page
    assert result.folder is not None
    assert set(json.loads((result.folder / "evidence.json").read_text())) == {
        "model", "model @ 0.005", "model @ 0.01",
    }  # fmt: skip


def test_a_verdict_is_never_copied_to_another_epsilon(tmp_path: Path) -> None:
    """Examined at one, then attacked at another without an examination: nothing is credible."""
    first = evaluated(epsilons=["0.005"], out=tmp_path)
    assert words(first) == {"0.005": "credible"}

    second = evaluated(epsilons=["0.01"], examine=False, out=tmp_path)

    assert second.folder == first.folder
    assert second.summary["headline"] == "0.01"
    assert words(second) == {"0.005": UNEXAMINED, "0.01": UNEXAMINED}
    assert second.folder is not None
    assert nothing_is_credible(second.folder)
    assert "**Verdict: not examined.**" in second.to_markdown()


def test_a_verdict_ends_with_the_outcomes_that_it_was_about(tmp_path: Path) -> None:
    """More attacks without an examination end it; what adds nothing keeps it."""
    assert words(evaluated(epsilons=["0.01"], out=tmp_path)) == {"0.01": "credible"}

    same = evaluated(epsilons=["0.01"], examine=False, out=tmp_path)
    assert words(same) == {"0.01": "credible"}

    more = evaluated(epsilons=["0.01"], examine=False, attacks="apgd-ce", out=tmp_path)
    assert words(more) == {"0.01": UNEXAMINED}
    assert more.folder is not None
    assert nothing_is_credible(more.folder)
    assert "verdict" not in part(more)

    again = evaluated(epsilons=["0.01"], attacks="apgd-ce", out=tmp_path)
    assert words(again) == {"0.01": "credible"}
    assert again.folder is not None
    assert load_results(again.folder).summary == again.summary


def test_two_commands_examine_two_epsilons(tmp_path: Path) -> None:
    """The second adds outcomes, so that the first has to look again, which computes nothing."""
    at = functools.partial(evaluated, epsilons=["0.005", "0.01"], sweep="each", out=tmp_path)
    at(headline="0.005")
    assert words(at(headline="0.01")) == {"0.005": UNEXAMINED, "0.01": "credible"}

    result = at(headline="0.005")

    assert result.summary["headline"] == "0.005"
    assert words(result) == {"0.005": "credible", "0.01": "credible"}
    assert set(part(result)["examinations"]) == {"0.01"}


def test_an_examination_that_did_not_finish_is_none(tmp_path: Path) -> None:
    """What a budget cuts short has no verdict; with a larger one it has."""
    short = evaluated(epsilons=["0.01"], budget=1_000, out=tmp_path)
    assert any(item["cause"] == "budget" for item in part(short)["failed"])
    assert words(short) == {"0.01": UNEXAMINED}

    assert words(evaluated(epsilons=["0.01"], out=tmp_path)) == {"0.01": "credible"}


def test_rows_stay_where_another_command_needs_their_outcomes_as_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is about other attacks, or other epsilons, examines the same headline."""
    rows = part(evaluated(epsilons=["0.005", "0.01"], out=tmp_path))["attacks"]
    stronger = Cell(attack="pgd", epsilon="0.01", scope="remaining", round=1)
    monkeypatch.setattr("bench.run.inquiry.requests", lambda *_: [asked("fgsm", "0.01")])
    monkeypatch.setattr("bench.run.inquiry.escalate", lambda *_: [stronger])
    for attacks, epsilon in (("fgsm,pgd", "0.003"), ("mi-fgsm", "0.01")):
        later = evaluated(epsilons=[epsilon], attacks=attacks, escalate=True, out=tmp_path)
        assert later.folder is not None
        found = part(load_results(later.folder))
        for attack, cells in rows.items():
            assert found["attacks"][attack].items() >= cells.items()
        assert found["worst_case"]["0.01"]["complete"]
        assert found["failed"] == []


@pytest.mark.parametrize("extra", ["", ",mi-fgsm"])
def test_what_an_earlier_examination_left_and_this_one_does_not_ask_for_is_gone(
    extra: str, tmp_path: Path
) -> None:
    """A run that a larger budget finished says what one says that was never cut short.

    A check of another epsilon than the command's is still to do.
    """
    direct = evaluated(epsilons=["0.01"], attacks=f"fgsm,pgd{extra}", out=tmp_path / "direct")
    short = evaluated(epsilons=["0.005", "0.01"], out=tmp_path / "short")
    assert short.folder is not None
    store, record = open_run(short.folder)
    attack, why = "square[queries=7]", "too little was left"
    shares = functools.partial(
        CellRecord, defense="model", key="", cause="budget", reason=why, attack=attack
    )
    cells = [
        shares(epsilon="0.01", scope="evidence", status="incomplete"),
        shares(epsilon="1", scope="evidence", status="incomplete"),
        shares(epsilon="0.01", scope="check", repeat=1, status="incomplete"),
        shares(epsilon="0.01", scope="remaining", round=3, status="skipped"),
        shares(epsilon="0.005", scope="check", repeat=2, status="incomplete"),
    ]
    store.write_record(record.model_copy(update={"cells": [*record.cells, *cells]}))

    again = evaluated(
        epsilons=["0.01"], attacks=f"fgsm,pgd{extra}", escalate=True, out=tmp_path / "short"
    )

    assert again.folder is not None
    found = part(load_results(again.folder))["failed"]
    assert [(item["attack"], item["epsilon"]) for item in found] == [
        ("square[queries=7]#2", "0.005")
    ]
    assert part(load_results(again.folder))["skipped"] == part(direct)["skipped"]
    assert part(again)["worst_case"]["0.01"] == part(direct)["worst_case"]["0.01"]


def test_adversarial_examples_from_elsewhere_are_weighed_with_the_same_evidence(
    tmp_path: Path,
) -> None:
    """They add none: the verdict stays where it was gathered, and counts them."""
    from bench.api import Candidates
    from bench.run.evaluation import contender_of
    from bench.run.prepare import Prepared, dataset_record, setting_of
    from bench.threat import Epsilon, Norm

    evaluated(epsilons=["0.005"], attacks="fgsm", out=tmp_path)
    config = RunConfig(("model",), out=tmp_path, workers=0, examine=False, headline="0.005")
    radii = [Epsilon.parse("0.005")]
    prepared = Prepared(
        config=config,
        examples=EXAMPLES,
        dataset=dataset_record(EXAMPLES, "", None),
        setting=setting_of(config, EXAMPLES, radii, "cpu"),
        headline=radii[0],
        contenders=[contender_of("model", Sum())],
        attacks=[],
        device="cpu",
    )
    held = Candidates("0" * 64, tuple(range(len(EXAMPLES))), EXAMPLES.inputs.numpy())

    result = run(with_candidates(prepared, attack_for("mine"), held))

    assert Norm.LINF.value == result.summary["norm"]
    assert words(result) == {"0.005": "credible"}


def older(folder: Path, headline: str) -> Result:
    """The run as an older version left it: one word on whether there was some examination."""
    path = folder / "run.json"
    content = json.loads(path.read_text())
    for defense in content["defenses"].values():
        defense.pop("examined", None)
    path.write_text(json.dumps({**content, "examined": True, "headline": headline}))
    return load_results(folder)


def test_older_folders_have_a_verdict_where_they_were_measured(tmp_path: Path) -> None:
    """They say only that there was an examination; at another headline there was none."""
    result = evaluated(epsilons=["0.005", "0.01"], out=tmp_path)
    assert result.folder is not None

    assert words(older(result.folder, "0.01")) == {"0.005": UNEXAMINED, "0.01": "credible"}

    moved = older(result.folder, "0.005")
    assert words(moved) == {"0.005": UNEXAMINED, "0.01": UNEXAMINED}
    assert "verdict" not in part(moved)


def test_an_older_summary_is_called_older(tmp_path: Path) -> None:
    """`verify` says what to do about it, instead of listing what it lacks."""
    result = evaluated(epsilons=["0.01"], out=tmp_path)
    assert result.folder is not None
    path = result.folder / "summary.json"
    summary = json.loads(path.read_text())
    del summary["defenses"]["model"]["examinations"]
    path.write_text(json.dumps(summary))
    model = tmp_path / "model.py"
    model.write_text("from tests.toy_models import Sum as load\n")

    faults = verify_run(result.folder, model=f"{model}:load").faults

    assert any("older version's: run its command again" in fault for fault in faults)
    assert not any("does not follow from the outcomes" in fault for fault in faults)
