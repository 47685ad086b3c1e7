"""Two runs, paired: against scipy's binomial test, and a loop over the examples."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_rel

from bench.errors import UnknownNameError, UsageError
from bench.report.comparison import compare_runs
from bench.report.paired import render_comparison

if TYPE_CHECKING:
    from pathlib import Path

N = 40
EPSILONS = ["4/255", "8/255"]


def summary(
    run: str = "aaaa0000", seed: int = 0, name: str = "kwta", epsilons: list[str] = EPSILONS
) -> dict[str, Any]:
    """A run of one defense whose critical distances are drawn by a seed; a few clean errors."""
    stream = np.random.default_rng(seed)
    critical: list[float | None] = [float(d) for d in stream.uniform(0, 0.06, N)]
    critical[seed % N] = 0.0
    critical[(seed + 3) % N] = None
    cell = {"status": "ok", "escalated": False, "reason": ""}
    part = {
        "network": "cnn",
        "weights_digest": f"{seed:064d}",
        "twin": "relu",
        "critical": critical,
        "verdict": {"level": "credible", "reasons": []},
        "attacks": {"pgd": dict.fromkeys(epsilons, cell)},
        "worst_case": {epsilon: {"complete": True} for epsilon in epsilons},
    }
    return {
        "run": run,
        "dataset": "digits",
        "data_digest": "d" * 64,
        "norm": "Linf",
        "n": N,
        "seed": 0,
        "epsilons": epsilons,
        "headline": epsilons[-1],
        "judging": {"version": 2, "precision": "fp32", "device": "cpu"},
        "sweep": "bracket",
        "limit": None,
        "budget": 1000,
        "defenses": {name: part},
        "controls": {},
        "provenance": {"commit": "c0ffee", "versions": {"torch": "2.15.0"}},
    }


def robust(side: dict[str, Any], name: str, epsilon: float) -> list[bool]:
    """Which examples nothing within epsilon breaks."""
    return [d is None or d > epsilon + 1e-6 for d in side["defenses"][name]["critical"]]


def test_differences_are_paired_by_example() -> None:
    """Accuracies, discordant examples and p are those of a loop and of scipy's binomial test."""
    first, second = summary(seed=1), summary("bbbb0000", seed=2)

    (pair,) = compare_runs(first, second)["pairs"]

    for written, value in (("clean", 0.0), ("4/255", 4 / 255), ("8/255", 8 / 255)):
        ours, theirs = (robust(side, "kwta", value) for side in (first, second))
        gained = sum(a and not b for a, b in zip(ours, theirs, strict=True))
        lost = sum(b and not a for a, b in zip(ours, theirs, strict=True))
        found = pair["epsilons"][written]
        assert (found["first"], found["second"]) == (sum(ours) / N, sum(theirs) / N)
        assert (found["only_first"], found["only_second"]) == (gained, lost)
        assert found["difference"] == pytest.approx(found["first"] - found["second"])
        assert found["low"] < found["difference"] < found["high"]
        assert found["p"] == pytest.approx(binomtest(gained, gained + lost, 0.5).pvalue)
    assert pair["epsilons"]["8/255"]["only_first"] > 0


def test_a_randomised_defense_is_compared_by_what_tables_show() -> None:
    """The mean over its draws, by a paired t-test as in scipy; an older summary has no draws."""
    first, second = summary(seed=1), summary("bbbb0000", seed=2)
    part = first["defenses"]["kwta"]
    part["worst_case"]["8/255"]["majority_accuracy"] = 0.5
    (older,) = compare_runs(first, second)["pairs"]
    assert any("of an older run" in note for note in older["notes"])
    shares = np.random.default_rng(5).uniform(0, 1, N).tolist()
    part["right"] = {"clean": [1.0] * N, "4/255": shares, "8/255": shares}

    (pair,) = compare_runs(first, second)["pairs"]

    found, theirs = pair["epsilons"]["8/255"], robust(second, "kwta", 8 / 255)
    expected = ttest_rel(shares, [float(each) for each in theirs])
    assert found["first"] == pytest.approx(np.mean(shares))
    assert found["second"] == sum(theirs) / N
    assert found["difference"] == pytest.approx(found["first"] - found["second"])
    assert found["p"] == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval()
    assert (found["low"], found["high"]) == pytest.approx((interval.low, interval.high))
    assert found["only_first"] == older["epsilons"]["8/255"]["only_first"]
    assert any("paired t-test" in note for note in pair["notes"])
    said = render_comparison(compare_runs(first, second))
    assert "test, with its interval. Neither" in said
    assert "exact McNemar" not in said
    part["right"] = {"clean": [1.0] * N, "4/255": [0.5] * N, "8/255": [0.5] * N}
    alike = summary("cccc0000", seed=1)
    alike["defenses"]["kwta"]["critical"] = [None] * N
    (pair,) = compare_runs(first, alike)["pairs"]
    assert pair["epsilons"]["8/255"]["test"] == "sign test"
    assert pair["epsilons"]["8/255"]["p"] == pytest.approx(2.0 ** (1 - N))
    assert pair["epsilons"]["8/255"]["low"] < -0.5 < pair["epsilons"]["8/255"]["high"]


def test_the_interval_is_bonett_and_prices() -> None:
    """By their formula: two pairs added, one to each discordant cell."""
    first, second = summary(seed=1), summary("bbbb0000", seed=2)
    found = compare_runs(first, second)["pairs"][0]["epsilons"]["8/255"]
    p, q = ((found[key] + 1) / (N + 2) for key in ("only_first", "only_second"))
    half = 1.959964 * np.sqrt((p + q - (p - q) ** 2) / (N + 2))

    assert (found["low"], found["high"]) == pytest.approx((p - q - half, p - q + half))


def test_two_defenses_of_one_run() -> None:
    """One from each side, in the order in which they are named; controls as well."""
    both = summary(seed=1)
    both["controls"]["relu"] = {**both["defenses"]["kwta"], "critical": [None] * N}

    (pair,) = compare_runs(both, both, ["relu", "kwta"])["pairs"]
    (turned,) = compare_runs(both, both, ["kwta", "relu"])["pairs"]

    assert pair["defenses"] == ["relu", "kwta"]
    difference = pair["epsilons"]["8/255"]["difference"]
    assert difference > 0
    assert difference == -turned["epsilons"]["8/255"]["difference"]


def test_epsilons_are_one_however_they_are_written() -> None:
    """0.5 is 1/2; what only one of them has is left out."""
    first, second = summary(epsilons=["0.01", "0.5"]), summary("b", seed=2, epsilons=["1/2"])

    (pair,) = compare_runs(first, second)["pairs"]

    assert list(pair["epsilons"]) == ["clean", "0.5"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_digest": "e" * 64, "n": 50}, "other examples.*n = 40.*n = 50.*same --n"),
        ({"norm": "L2"}, "one is in Linf and the other in L2"),
        ({"judging": {"version": 1, "precision": "fp32"}}, "other rules.*version 2 and 1"),
        ({"judging": {"version": 2, "precision": "tf32"}}, "other rules.*precision"),
        ({"defenses": summary(name="relu")["defenses"]}, "no defense in common.*name one of each"),
        ({"defenses": summary(epsilons=["1"])["defenses"]}, "no epsilon in common"),
        ({"run": "aaaa0000"}, "the same one: name two"),
    ],
)
def test_what_cannot_be_paired_is_refused(change: dict[str, Any], message: str) -> None:
    """With the reason, and what to do."""
    second = {**summary("bbbb0000", seed=2), **change}

    with pytest.raises(UsageError, match=message):
        compare_runs(summary(), second)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["kwtaa"], "did you mean 'kwta'"),
        (["kwta", "relu"], "unknown defense of run bbbb0000 'relu'"),
        (["a", "b", "c"], "one for each run; got 3"),
    ],
)
def test_names_that_are_not_there(names: list[str], message: str) -> None:
    """Did-you-mean, in which run."""
    with pytest.raises((UsageError, UnknownNameError), match=message):
        compare_runs(summary(), summary("bbbb0000", seed=2), names)


def test_a_defense_is_not_compared_with_itself() -> None:
    """The same name in the same run."""
    with pytest.raises(UsageError, match="not compared with itself"):
        compare_runs(summary(), summary(), ["kwta"])


def test_attacks_are_no_part_of_an_id(tmp_path: Path) -> None:
    """Runs of one id are two where they lie in two folders, and are called by these."""
    theirs, mine = summary(), summary(seed=2)
    folders = tmp_path / "theirs", tmp_path / "mine"

    found = compare_runs(theirs, mine, folders=folders)

    assert found["pairs"][0]["defenses"] == ["kwta", "kwta"]
    title = render_comparison(found).splitlines()[0]
    assert all(folder.name in title for folder in folders)
    with pytest.raises(UnknownNameError, match="theirs 'relu'"):
        compare_runs(theirs, mine, ["relu"], folders)
    with pytest.raises(UsageError, match="mine cannot be paired"):
        compare_runs(theirs, {**mine, "norm": "L2"}, folders=folders)


def test_one_folder_is_one_run_however_it_is_written(tmp_path: Path) -> None:
    """Through a link as well; two of its defenses have the run's id in their title once."""
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    both = summary()
    both["controls"]["relu"] = both["defenses"]["kwta"]

    with pytest.raises(UsageError, match="the same one: name two"):
        compare_runs(both, both, folders=[tmp_path, link])
    found = compare_runs(both, both, ["kwta", "relu"], [tmp_path, link])
    assert render_comparison(found).startswith("# aaaa0000\n")


def test_everything_else_that_differs_is_named() -> None:
    """Seed, version, commit and device of the runs; weights and attacks of the defenses."""
    first, second = summary(seed=1), summary("bbbb0000", seed=2)
    second["seed"] = 7
    second["judging"] = {**second["judging"], "device": "cuda"}
    second["provenance"] = {"commit": "decade", "versions": {"torch": "2.16.0"}}
    second["defenses"]["kwta"]["attacks"]["square"] = second["defenses"]["kwta"]["attacks"]["pgd"]

    found = compare_runs(first, second)

    runs = {item["what"]: (item["first"], item["second"]) for item in found["differences"]}
    assert runs == {
        "seed": (0, 7),
        "judged on": ("cpu", "cuda"),
        "commit": ("c0ffee", "decade"),
        "torch version": ("2.15.0", "2.16.0"),
    }
    defenses = {item["what"]: item["second"] for item in found["pairs"][0]["differences"]}
    assert defenses == {"weights": f"{2:064d}", "attacks": ["square"]}
    assert "not attacked alike" in found["pairs"][0]["notes"][0]


def test_alike_runs_differ_in_nothing() -> None:
    """The same weights attacked twice: no difference, p 1, and it is said that they are equal."""
    found = compare_runs(summary(), summary("bbbb0000"))

    assert found["differences"] == []
    (pair,) = found["pairs"]
    assert pair["differences"] == []
    assert [cell["p"] for cell in pair["epsilons"].values()] == [1.0, 1.0, 1.0]
    assert pair["notes"][0].startswith("The weights are the same")
    assert "does not differ significantly" in render_comparison(found)


def test_one_training_under_two_names_is_two_defenses() -> None:
    """Such as one that stands on another's weights: the difference is its own."""
    second = summary("bbbb0000")
    second["defenses"] = {"other": second["defenses"]["kwta"]}
    (pair,) = compare_runs(summary(), second, ["kwta", "other"])["pairs"]
    assert pair["notes"][0].startswith("The weights are the same: one stands on")


def test_markdown_escapes_and_marks() -> None:
    """A name cannot break the table, and an unfinished worst case has its dagger."""
    first, second = summary(name="a|b"), summary("bbbb0000", seed=2, name="a|b")
    second["defenses"]["a|b"]["worst_case"]["8/255"]["complete"] = False

    text = render_comparison(compare_runs(copy.deepcopy(first), second))

    assert "a\\|b" in text
    assert "a|b" not in text
    (line,) = [line for line in text.splitlines() if line.startswith("| 8/255")]
    assert line.count("†") == 1
    assert line.count(" | ") == 6
