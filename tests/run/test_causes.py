"""Code reads causes: whatever the sentences beside them say, tables and verdicts are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from bench.record.results import read_cells
from bench.record.schema import CellRecord, older_cause
from bench.record.store import open_run
from bench.record.summary import build
from bench.report import render_leaderboard
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.run.recording import examined

if TYPE_CHECKING:
    from bench.record.results import CellResult
    from bench.record.schema import RunRecord

#: Words that once decided something, and others.
SENTENCES = (
    "WHY",
    "the defense WHY",
    "escalation would need WHY",
    "nan or infinity: WHY",
    "not enough memory: WHY",
    "no clean predictions: WHY",
    "AutoAttack: WHY",
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunRecord, dict[str, list[Any]]]:
    """A run with cells that failed, were skipped for each reason, and left out by their budget."""
    config = RunConfig(
        defenses=("relu", "kwta-at"),
        attacks="fgsm,pgd,surrogate,gaussian-noise",
        n=10,
        epsilons=("0.1",),
        workers=0,
        escalation_budget=0,
        out=tmp_path_factory.mktemp("runs"),
    )
    store, record = open_run(run(prepare(config)).folder)  # type: ignore[arg-type]
    results: dict[str, list[CellResult]] = read_cells(store, record)
    failed = {"kwta-at": "not-finite", "relu-at": "raised", "relu": "raised"}
    cells = [
        cell.model_copy(update={"status": "failed", "cause": failed[cell.defense], "reason": "x"})
        if cell.attack == "fgsm"
        else cell
        for cell in record.cells
    ]
    kept = {name: [r for r in own if r.cell.attack != "fgsm"] for name, own in results.items()}
    changed = record.model_copy(update={"cells": cells})
    return changed.with_examined(changed.defenses, changed.epsilons), kept


def told(stored: tuple[RunRecord, dict[str, list[Any]]], sentence: str) -> tuple[Any, str]:
    """The summary and its page, with this sentence as every reason, and without it again."""
    record, results = stored
    cells = [
        cell.model_copy(update={"reason": sentence if cell.reason else ""}) for cell in record.cells
    ]
    reworded = record.model_copy(update={"cells": cells})
    summary = build(reworded, results, examined(reworded, results))
    return summary, render_leaderboard([summary]).replace(sentence, "…")


def test_the_run_has_a_cell_of_each_cause(
    stored: tuple[RunRecord, dict[str, list[Any]]],
) -> None:
    """Else the test below would be about less than it says."""
    causes = {cell.cause for cell in stored[0].cells}
    assert causes >= {"not-finite", "raised", "inapplicable", "not-here", "escalation-budget", ""}


@pytest.mark.parametrize("sentence", SENTENCES[1:])
def test_no_decision_hangs_on_words(
    stored: tuple[RunRecord, dict[str, list[Any]]], sentence: str
) -> None:
    """Tables, what shares one, evidence, marks and verdicts."""
    (summary, page), (expected, as_expected) = told(stored, sentence), told(stored, SENTENCES[0])
    assert page == as_expected
    for name, part in summary["defenses"].items():
        for key in ("verdict", "evidence", "marks", "worst_case"):
            assert part[key] == expected["defenses"][name][key]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        (
            {"attack": "pgd#1", "source": "inferred", "status": "ok"},
            {"attack": "pgd", "repeat": 1, "inferred": True, "cause": ""},
        ),
        (
            {"status": "skipped", "reason": "the defense declares no surrogates"},
            {"cause": "inapplicable", "inferred": False},
        ),
        ({"status": "skipped", "reason": "searches in L2 only"}, {"cause": "not-here"}),
        (
            {"status": "skipped", "reason": "escalation would need 5 passes beyond its budget"},
            {"cause": "escalation-budget"},
        ),
        (
            {"status": "failed", "reason": "the model answered 3 of 50 with NaN or infinity"},
            {"cause": "not-finite"},
        ),
        ({"status": "failed", "reason": "ValueError: x"}, {"cause": "raised"}),
        ({"status": "incomplete", "reason": "it could need more"}, {"cause": "budget"}),
        ({"status": "incomplete"}, {"cause": ""}),
    ],
)
def test_cells_of_older_files_are_read(older: dict[str, Any], newer: dict[str, Any]) -> None:
    """They told the repeat in the name, and the cause in words alone."""
    cell = {"defense": "kwta", "attack": "pgd", "epsilon": "0.1", "key": "k", **older}
    read = CellRecord.model_validate(cell)
    assert {key: getattr(read, key) for key in newer} == newer
    assert CellRecord.model_validate(read.model_dump()) == read


def test_a_cause_that_is_written_is_not_read_from_words() -> None:
    """What a sentence of an older file would mean is nothing to a newer one."""
    cell = {"defense": "d", "attack": "a", "epsilon": "1", "key": "", "status": "skipped"}
    words = "the defense has it, says its author"
    assert older_cause("skipped", words) == "inapplicable"
    assert CellRecord.model_validate({**cell, "cause": "not-here", "reason": words}).cause == (
        "not-here"
    )
