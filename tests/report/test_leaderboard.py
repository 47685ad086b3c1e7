"""Leaderboards: what is compared, what is not, and what is printed."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import pytest

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import StoreWarning
from bench.report import render_leaderboard, write_leaderboard
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def summary() -> dict[str, Any]:
    """Of a run of `Sum`."""
    examples = linear_examples()
    return attack_only(
        Sum(),
        examples.inputs,
        examples.labels,
        epsilons=["0.02"],
        attacks="test-best,gaussian-noise",
    ).summary


def variant(summary: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A summary that differs in some top-level keys."""
    return {**copy.deepcopy(summary), **changes}


def rows(text: str) -> list[list[str]]:
    """The cells of the ranked rows of all tables."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_same_runs_give_the_same_bytes_in_any_order(summary: dict[str, Any]) -> None:
    """Permuted input, equal text."""
    runs = [variant(summary, run=name, seed=i) for i, name in enumerate("abc")]
    assert render_leaderboard(runs) == render_leaderboard(runs[::-1])


@pytest.mark.parametrize(
    "change",
    [
        {"data_digest": "other"},
        {"norm": "L2"},
        {"headline": "0.02", "judging": {"version": 99, "precision": "fp32", "device": "cpu"}},
        {"budget": 7},
        {"dataset": "other"},
    ],
)
def test_what_cannot_be_compared_stands_in_another_table(
    summary: dict[str, Any], change: dict[str, Any]
) -> None:
    """Two tables, each with one row of rank 1."""
    text = render_leaderboard([summary, variant(summary, run="b", **change)])
    assert [row[0] for row in rows(text)] == ["1", "1"]


def test_other_attack_sets_stand_in_another_table(summary: dict[str, Any]) -> None:
    """A worst case over fewer attacks is not comparable."""
    fewer = variant(summary, run="b")
    defense = fewer["defenses"]["model"]
    defense["attacks"]["pgd"] = defense["attacks"].pop("test-best")
    assert [row[0] for row in rows(render_leaderboard([summary, fewer]))] == ["1", "1"]


def test_an_attack_that_does_not_apply_to_a_defense_leaves_it_comparable(
    summary: dict[str, Any],
) -> None:
    """Surrogates that it does not declare; unlike a library that is not installed."""
    for cause, tables in (("inapplicable", 1), ("not-here", 2)):
        runs = [variant(summary, run=name) for name in "ab"]
        cell = runs[0]["defenses"]["model"]["attacks"]["test-best"]["0.02"]
        for run, status in zip(runs, ("ok", "skipped"), strict=True):
            run["defenses"]["model"]["attacks"]["other"] = {
                "0.02": {**cell, "status": status, "cause": cause if status == "skipped" else ""}
            }
        assert render_leaderboard(runs).count("| rank |") == tables


def test_runs_of_the_same_weights_are_one_row_by_the_and_per_example(
    summary: dict[str, Any],
) -> None:
    """Each run broke an example that the other did not: together both are broken."""
    runs = [variant(summary, run=name, seed=i) for i, name in enumerate("ab")]
    for broken, run in enumerate(runs):
        critical: list[float | None] = [None] * 20
        critical[broken] = 0.01
        run["defenses"]["model"]["critical"] = critical
    ((rank, name, _, _, robust, *_, where),) = rows(render_leaderboard(runs))
    assert (rank, name, where) == ("1", "model", "a, b")
    assert robust.startswith("**90.0 ")


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["credible", "credible"], "credible"),
        (["credible", "not examined"], "not examined"),
        (["credible", None], "not examined"),
        (["not examined", "suspect"], "suspect"),
        (["suspect", "unreliable"], "unreliable"),
        (["unreliable", "broken"], "broken"),
    ],
)
def test_a_figure_of_several_runs_is_no_better_examined_than_each(
    summary: dict[str, Any], words: list[str | None], shown: str
) -> None:
    """A verdict is about its own run's figure, not about a lower one that runs make together."""
    runs = [variant(summary, run=name) for name in "ab"]
    for run, word in zip(runs, words, strict=True):
        run["defenses"]["model"]["worst_case"]["0.02"]["verdict"] = word
    for order in (runs, runs[::-1]):
        ((*_, where),) = table = rows(render_leaderboard(order))
        assert where == "a, b"
        assert table[0][5] == shown


def test_defenses_are_ranked_by_their_worst_case(summary: dict[str, Any]) -> None:
    """Three defenses in three runs, the most robust first."""
    runs = []
    for name, broken in (("weak", 15), ("strong", 2), ("middle", 9)):
        run = variant(summary, run=name)
        defense = run["defenses"].pop("model")
        defense["critical"] = [0.0] * broken + [None] * (20 - broken)
        defense["weights_digest"] = name
        run["defenses"] = {name: defense}
        runs.append(run)
    table = rows(render_leaderboard(runs))
    assert [(row[0], row[1]) for row in table] == [("1", "strong"), ("2", "middle"), ("3", "weak")]


def test_the_matrix_shows_rows_worst_case_and_what_did_not_run(summary: dict[str, Any]) -> None:
    """The exact figure in row and worst case, and the reason beside the gap."""
    text = render_leaderboard([summary])
    exact = float((linf_thresholds(linear_examples()) > 0.02).double().mean())
    passes = summary["defenses"]["model"]["attacks"]["test-best"]["0.02"]["forwards"]
    assert f"| test-best | {100 * exact:.1f} | {passes} |" in text
    assert f"| **worst case** | **{100 * exact:.1f}** |" in text
    assert "- gaussian-noise not run: searches in L2 only" in text


def test_what_is_printed_cannot_break_out_of_the_table(summary: dict[str, Any]) -> None:
    """Names and reasons with pipes, line breaks and markup stay in their cell."""
    nasty = variant(summary, dataset="a|b\n# <script>")
    nasty["defenses"]["model"]["failed"] = [
        {"attack": "x", "epsilon": "0.02", "reason": "a\n| b | <img src=x> [link](y)"}
    ]
    text = render_leaderboard([nasty])
    assert "<script>" not in text
    assert "<img" not in text
    assert "[link]" not in text.replace("\\[link\\]", "")
    assert "\n| b" not in text


def test_an_unfinished_worst_case_is_marked(summary: dict[str, Any]) -> None:
    """With a dagger in the ranking and in the matrix."""
    run = variant(summary)
    run["defenses"]["model"]["worst_case"]["0.02"]["complete"] = False
    text = render_leaderboard([run])
    assert rows(text)[0][4].endswith("†")
    assert "may be lower" in text


def test_a_leaderboard_is_written_over_the_runs_of_a_folder(
    tmp_path: Path, summary: dict[str, Any]
) -> None:
    """From their summaries; one that is damaged is named."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps(variant(summary, run=name)))
    text = write_leaderboard(tmp_path).read_text()
    assert len(rows(text)) == 1
    assert "a, b" in text
    (tmp_path / "b" / "summary.json").write_text("[]")
    with pytest.warns(StoreWarning, match="is not the summary of a run"):
        text = write_leaderboard(tmp_path).read_text()
    assert len(rows(text)) == 1
    assert "a, b" not in text


def test_a_figure_that_rests_on_another_epsilon_is_marked_wherever_it_stands(
    summary: dict[str, Any],
) -> None:
    """In the ranking, above the matrix and in it, with what the check of it found."""
    run = variant(summary)
    defense = run["defenses"]["model"]
    defense["worst_case"]["0.02"]["inferred"] = 3
    defense["sweep"] = {"inferred": 3, "checked": 1, "differed": 0}
    text = render_leaderboard([run])
    ((_, _, _, _, robust, *_),) = rows(text)
    assert robust.endswith("** ‡")
    assert " %** ‡ at ε = 0.02" in text
    assert re.search(r"\| \*\*worst case\*\* \| \*\*[0-9.]+\*\* ‡ \|", text)
    assert "Sweep: 3 survivals" in text
    assert "1 others were attacked after all, and 0 of them broke" in text
    assert "‡" not in render_leaderboard([summary])


def test_the_power_of_attacks_stands_below_their_figures(summary: dict[str, Any]) -> None:
    """The most first, and together beside the worst case; without a measurement nothing."""
    run = variant(summary)
    run["defenses"]["model"]["power"] = {
        "epsilon": "0.02",
        "planted": 50,
        "found": {"apgd-ce": 34, "margin-pgd[restarts=3]": 39},
        "together": 44,
    }
    text = render_leaderboard([run])
    assert "(its attacks find 44 of 50 planted; lowest row: test-best)" in text
    assert "are found: margin-pgd\\[restarts=3\\] 39, apgd-ce 34; together 44." in text
    run["defenses"]["model"]["power"] = None
    assert "planted" not in render_leaderboard([run])
    assert "planted" not in render_leaderboard([summary])


@pytest.mark.parametrize("broken", [0, 3])
def test_what_took_the_worst_case_below_every_row_is_named(
    summary: dict[str, Any], broken: int
) -> None:
    """An attack of the examination has a marked row, and is named if it broke what was left."""
    changed = copy.deepcopy(summary)
    attacks = changed["defenses"]["model"]["attacks"]
    cell = {
        "status": "ok", "scope": "remaining", "escalated": True, "robust_accuracy": None,
        "attacked": 7, "broken": broken,
    }  # fmt: skip
    attacks["last"] = {"0.02": {**attacks["test-best"]["0.02"], **cell}}
    text = render_leaderboard([changed])
    assert f"| last (escalation) | −{broken} of 7 |" in text
    assert "test-best (escalation)" not in text
    beyond = f"lowest row: test-best; of what was left, broken by last {broken} of 7)"
    assert (beyond in text) == bool(broken)
    assert ("lowest row: test-best)" in text) != bool(broken)


def test_a_figure_of_zero_is_never_called_credible(summary: dict[str, Any]) -> None:
    """Not even where two runs, each credible of what it left, break everything together."""
    runs = [variant(summary, run=name) for name in "ab"]
    n = summary["n"]
    for run, part in zip(runs, (range(n // 2), range(n // 2, n)), strict=True):
        defense = run["defenses"]["model"]
        defense["critical"] = [0.01 if i in part else None for i in range(n)]
        defense["worst_case"]["0.02"]["verdict"] = "credible"
    ((*_, where),) = table = rows(render_leaderboard(runs))
    assert where == "a, b"
    assert table[0][4].startswith("**0.0 (")
    assert table[0][5] == "broken"


def test_no_attack_is_called_lowest_that_broke_nothing(summary: dict[str, Any]) -> None:
    """Where every row is the clean accuracy, the first of the alphabet would lead."""
    changed = copy.deepcopy(summary)
    defense = changed["defenses"]["model"]
    for cells in defense["attacks"].values():
        cells["0.02"] |= {"robust_accuracy": defense["clean_accuracy"]}
    assert "lowest row: –)" in render_leaderboard([changed])
    assert "lowest row: test-best)" in render_leaderboard([summary])
