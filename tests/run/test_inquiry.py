"""The examination of a run: what it asks for, what it says, and that it is a run like any other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from bench import registry
from bench.run import run
from bench.run.config import RunConfig
from bench.run.menu import menu_of
from bench.run.prepare import prepare
from bench.run.verification import verify_run
from bench.threat import Norm
from tests.run.test_run import figures

if TYPE_CHECKING:
    from pathlib import Path

    from bench.run import Result

pytestmark = pytest.mark.whole

#: On so few examples k-WTA without adversarial training is left at chance, and nothing escalates.
CONFIG = RunConfig(
    defenses=("kwta-at",),
    attacks="pgd,apgd-ce",
    n=30,
    epsilons=("0.05", "0.1"),
    workers=0,
    escalation_budget=400_000,
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the run of k-WTA is stored."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def kwta(out: Path) -> Result:
    """k-WTA attacked by gradients alone, and examined."""
    return run(prepare(dataclasses.replace(CONFIG, out=out)))


def test_what_evidence_asks_for_is_registered_under_its_canonical_name() -> None:
    """A name written otherwise would be another cell than the user's own."""
    names = menu_of(Norm.LINF, (1, 8, 8), 10).names
    assert {"pgd[steps=80]", "square[queries=1000]", "eot-pgd", "adaptive[preset=full]"} <= {*names}
    assert [registry.attacks.create(name).name for name in names] == list(names)


def test_k_wta_is_exposed_though_only_gradient_attacks_were_asked_for(kwta: Result) -> None:
    """Escalation lowers the worst case below every row asked for, and the verdict says why."""
    defense = kwta.summary["defenses"]["kwta-at"]
    worst = defense["worst_case"]["0.1"]
    rows = [defense["attacks"][name]["0.1"]["robust_accuracy"] for name in ("pgd", "apgd-ce")]
    assert worst["robust_accuracy"] < min(rows) - 0.1
    assert worst["verdict"] == defense["verdict"]["level"] != "credible"
    assert 1 <= len(defense["verdict"]["reasons"]) <= 3
    failed = {item["id"] for item in defense["evidence"] if item["status"] == "fail"}
    assert "gradient-fidelity" in failed
    assert defense["marks"]["pgd"] == "misled"


def test_escalation_attacks_what_is_left_and_is_no_row(kwta: Result) -> None:
    """Its cells say so, and together with the rows they make the worst case."""
    defense = kwta.summary["defenses"]["kwta-at"]
    escalated = {
        name: cells["0.1"]
        for name, cells in defense["attacks"].items()
        if "0.1" in cells and cells["0.1"]["escalated"]
    }
    assert escalated.keys() == {"adaptive[preset=full]", "quantised-pgd"}
    for cell in escalated.values():
        assert cell["scope"] == "remaining"
        assert cell["robust_accuracy"] is None
        assert cell["attacked"] < 30


def test_the_twin_gets_every_attack_that_its_defense_gets(kwta: Result) -> None:
    """At the headline epsilon: repetitions and escalation too, and nothing that is not compared."""
    assert kwta.folder is not None
    from bench.record.store import open_run

    _, record = open_run(kwta.folder)
    got = {
        name: {
            c.label
            for c in record.cells
            # What the budget left out, or needs surrogates that ReLU has not, is no cell filled.
            if c.defense == name and c.status == "ok" and c.epsilon in epsilons
        }
        for name, epsilons in (("kwta-at", ("0", "0.1")), ("relu-at", ("0", "0.1", "0.5", "1")))
    }
    probes = {name for name in got["kwta-at"] if name.startswith("probe-")}
    assert len(probes) >= 3
    assert got["relu-at"] == got["kwta-at"] - probes
    assert record.defenses["relu-at"].control
    assert list(kwta.summary["defenses"]) == ["kwta-at"]
    twin = kwta.summary["controls"]["relu-at"]
    assert list(twin["worst_case"]) == ["0.1"]
    comparison = kwta.summary["defenses"]["kwta-at"]["comparison"]
    assert comparison["missing"] == []
    assert "relu-at" in comparison["sentence"]
    assert "checkpoint" in comparison["sentence"]


def test_the_twin_is_compared_with_and_not_examined(kwta: Result) -> None:
    """Without measurements of it there is no evidence, and no verdict."""
    twin = kwta.summary["controls"]["relu-at"]
    assert twin["worst_case"]["0.1"]["verdict"] == "not examined"
    assert "evidence" not in twin


def test_the_report_says_it(kwta: Result) -> None:
    """Verdict and reasons, marks, failed evidence, what escalation did, and the credit."""
    text = kwta.to_markdown()
    for part in ("**Verdict: ", "| pgd (misled) |", "- gradient-fidelity (soft)", "Escalation: "):
        assert part in text
    assert "Credit: kwta-at" in text


def test_an_examined_run_continues_and_verifies(kwta: Result, out: Path) -> None:
    """Run again, it computes nothing and says the same; from its files it holds."""
    stored = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    again = run(prepare(dataclasses.replace(CONFIG, out=out)))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")} == stored
    assert figures(again.summary) == figures(kwta.summary)
    assert kwta.folder is not None
    assert verify_run(kwta.folder, device="cpu").faults == []


def test_a_later_command_that_asks_for_less_loses_nothing(kwta: Result, out: Path) -> None:
    """Without examination and twins: evidence, verdict and control stay as they were."""
    less = run(prepare(dataclasses.replace(CONFIG, out=out, examine=False, attacks="pgd")))
    assert figures(less.summary) == figures(kwta.summary)


@pytest.mark.parametrize(
    "config",
    [dataclasses.replace(CONFIG, escalate=False), dataclasses.replace(CONFIG, escalation_budget=0)],
    ids=["switch", "budget"],
)
def test_escalation_can_be_left_out(tmp_path: Path, config: RunConfig) -> None:
    """By its switch, or by a budget that nothing fits in; the verdict stays."""
    config = dataclasses.replace(
        config, out=tmp_path, epsilons=("0.1",), attacks="pgd", twins=False
    )
    summary = run(prepare(config)).summary
    defense = summary["defenses"]["kwta-at"]
    assert not any(
        cell["escalated"] and cell["status"] == "ok"
        for cells in defense["attacks"].values()
        for cell in cells.values()
    )
    assert defense["verdict"]["level"] != "credible"
    assert summary["controls"] == {}
    left_out = [item["attack"] for item in defense["skipped"]]
    assert ("adaptive[preset=full]" in left_out) == (config.escalation_budget == 0)
