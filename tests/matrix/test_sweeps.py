"""Sweeps: what is not attacked, that it comes out the same, and that inferences are checked."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.matrix import schedule
from bench.run import run
from bench.run.config import RunConfig
from bench.run.evaluation import evaluate
from bench.run.inquiry import Inferred, sample
from bench.run.prepare import prepare
from bench.threat import Epsilon
from bench.trust import asked
from tests.run.test_run import figures
from tests.toy_models import Sum, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from bench.record.schema import Sweep
    from bench.run import Result


EPSILONS = ["0.002", "0.005", "0.01", "0.02", "0.05"]
THRESHOLDS = linf_thresholds(linear_examples())
#: An attack that is run once for each epsilon, and one that takes all of them in one batch.
ALONE_OR_TOGETHER = pytest.mark.parametrize("rows", ["", "-rows"])


def sweep(
    attacks: str,
    how: Sweep = "bracket",
    model: nn.Module | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> Result:
    """A model on the linear examples in shards of six, examined, without escalation."""
    examples = linear_examples()
    return evaluate(
        model or Sum(),
        examples.inputs,
        examples.labels,
        epsilons=EPSILONS,
        attacks=attacks,
        shard_size=6,
        escalate=False,
        sweep=how,
        seed=seed,
        out=out,
    )


def defense(result: Result) -> dict[str, Any]:
    """The model's part of the summary."""
    part: dict[str, Any] = result.summary["defenses"]["model"]
    return part


def curve(result: Result) -> list[float]:
    """The worst case over the epsilons."""
    return [defense(result)["worst_case"][e]["robust_accuracy"] for e in EPSILONS]


def test_what_waits_for_nothing_else_goes_together() -> None:
    """The headline first; then what takes all epsilons, beside the others' first, and the rest."""
    chosen = ("square", "pgd", "margin-pgd")
    config = RunConfig(("relu",), ",".join(chosen), epsilons=("0.05", "0.1", "0.2"), headline="0.1")
    cells = [each for each in prepare(config).cells if each.cell.attack in chosen]
    groups = schedule.rows(cells, Epsilon.parse("0.1"), "bracket")
    assert [[(p.cell.attack, p.epsilon.text) for p in group] for group in groups] == [
        [
            ("square", "0.1"), ("pgd", "0.1"),
            ("margin-pgd", "0.05"), ("margin-pgd", "0.1"), ("margin-pgd", "0.2"),
        ],
        [("square", "0.05"), ("square", "0.2"), ("pgd", "0.05")],
        [("pgd", "0.2")],
    ]  # fmt: skip


class Misleading(Sum):
    """`Sum` with a gradient that has nothing to do with how it changes."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2)."""
        noise = torch.sin(1e4 * x)
        return super().forward(x.detach()) + 1e-9 * super().forward(noise)


@ALONE_OR_TOGETHER
@pytest.mark.usefixtures("gradients_alone")
def test_the_curve_is_the_closed_form_and_each_example_survives_once(rows: str) -> None:
    """Each example is attacked downwards from the top until it survives, and no further.

    `Best` breaks an example exactly within its threshold, at a norm of exactly epsilon, so that
    every break costs one attack at one epsilon.
    """
    result = sweep(f"test-remaining{rows}")
    assert curve(result) == [float((float(e) < THRESHOLDS).double().mean()) for e in EPSILONS]
    frame = result.outcomes_full[result.outcomes_full["repeat"] == 0]
    for here, above in zip(EPSILONS, [*EPSILONS[1:], ""], strict=True):
        cell = frame[(frame["attack"] == f"test-remaining{rows}") & (frame["epsilon"] == here)]
        expected = float(above) >= THRESHOLDS if above else torch.ones(20, dtype=torch.bool)
        assert cell["attacked"].tolist() == expected.tolist()


@ALONE_OR_TOGETHER
@pytest.mark.usefixtures("gradients_alone")
def test_inferred_survivors_are_counted_and_a_sample_is_checked(rows: str) -> None:
    """Everything below the one survival is inferred, but for a tenth of the examples."""
    part = defense(sweep(f"test-remaining{rows}"))
    below = [sum(t > float(e) for e in EPSILONS) - 1 for t in THRESHOLDS.tolist()]
    examples, pairs = sum(b > 0 for b in below), sum(b for b in below if b > 0)
    checked = math.ceil(0.1 * examples)
    assert part["sweep"] == {"inferred": pairs - checked, "checked": checked, "differed": 0}
    assert sum(w["inferred"] for w in part["worst_case"].values()) == pairs - checked
    assert part["worst_case"][EPSILONS[-1]]["inferred"] == 0
    assert all(w["complete"] for w in part["worst_case"].values())
    lowest = part["attacks"][f"test-remaining{rows}"][EPSILONS[0]]
    assert lowest["source"] == "inferred"


@ALONE_OR_TOGETHER
@pytest.mark.usefixtures("gradients_alone")
def test_a_difference_in_the_sample_has_everything_attacked(rows: str) -> None:
    """An attack that works at small epsilons alone: the curve is that of each epsilon.

    With this seed the sample holds one that breaks.
    """
    name = f"test-small-remaining{rows}"
    bracket, each = (sweep(name, how, seed=2) for how in ("bracket", "each"))
    assert curve(bracket) == curve(each)
    assert curve(each)[-1] < 1.0
    report = defense(bracket)["sweep"]
    assert report["inferred"] == 0
    assert report["checked"] > report["differed"] > 0
    assert defense(each)["sweep"] is None


@ALONE_OR_TOGETHER
@pytest.mark.usefixtures("gradients_alone")
def test_where_gradients_mislead_nothing_is_left_to_inference(rows: str) -> None:
    """Each survivor is attacked at each epsilon."""
    part = defense(sweep(f"test-remaining{rows}", model=Misleading()))
    fidelity = next(i for i in part["evidence"] if i["id"] == "gradient-fidelity")
    assert fidelity["status"] == "fail"
    assert part["sweep"]["inferred"] == 0
    assert part["sweep"]["checked"] == sum(
        max(0, sum(t > float(e) for e in EPSILONS) - 1) for t in THRESHOLDS.tolist()
    )


@pytest.mark.usefixtures("gradients_alone")
def test_rows_come_out_the_same_though_they_skip_what_they_broke() -> None:
    """All but the headline's leave out what the attack broke within them."""
    bracket, each = (defense(sweep("test-best", how)) for how in ("bracket", "each"))
    for epsilon in EPSILONS:
        one, other = (part["attacks"]["test-best"][epsilon] for part in (bracket, each))
        assert one["robust_accuracy"] == other["robust_accuracy"]
        assert other["source"] == "attacked"
        assert other["attacked"] == 20
    row = bracket["attacks"]["test-best"]
    assert row[EPSILONS[-1]]["source"] == "attacked"  # the headline
    assert row[EPSILONS[-1]]["attacked"] == 20
    attacked = [row[e]["attacked"] for e in EPSILONS[:-1]]
    assert attacked == [20, *(int((float(e) < THRESHOLDS).sum()) for e in EPSILONS[:-2])]
    for epsilon, count in zip(EPSILONS, attacked, strict=False):
        assert row[epsilon]["source"] == ("inferred" if count < 20 else "attacked")
    assert attacked[-1] < 20


@pytest.mark.usefixtures("gradients_alone")
def test_what_takes_all_epsilons_in_one_batch_by_gradients_leaves_nothing_out() -> None:
    """Each row is whole, in one computation, with the same figures."""
    bracket, each = (sweep("test-best-rows", how) for how in ("bracket", "each"))
    assert curve(bracket) == curve(each)
    row = defense(bracket)["attacks"]["test-best-rows"]
    assert {cell["source"] for cell in row.values()} == {"attacked"}
    assert {cell["attacked"] for cell in row.values()} == {20}


def test_a_row_that_evidence_needs_is_attacked_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The examination reads PGD at 0.5, which the user asked for as one of several."""
    monkeypatch.setattr("bench.run.inquiry.requests", lambda case, menu: [asked("pgd", "1/2")])
    config = RunConfig(
        defenses=("relu",),
        attacks="pgd",
        n=10,
        epsilons=("0.1", "0.2", "1/2"),
        workers=0,
        escalate=False,
        out=tmp_path,
    )
    row = run(prepare(config)).summary["defenses"]["relu"]["attacks"]["pgd"]
    assert row["0.2"]["source"] == "inferred"
    assert row["1/2"]["source"] == "attacked"
    assert row["1/2"]["scope"] == "all"
    assert row["1/2"]["attacked"] == row["0.1"]["attacked"] > row["0.2"]["attacked"]
    assert row["1/2"]["robust_accuracy"] == 0.0


@pytest.mark.usefixtures("gradients_alone")
def test_a_randomised_defense_is_attacked_at_each_epsilon() -> None:
    """It is broken by degrees, from which nothing follows for another epsilon."""

    class Noisy(Sum):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x + 0.1 * torch.randn_like(x))

    part = defense(sweep("test-best,test-remaining", model=Noisy()))
    assert {cell["source"] for cell in part["attacks"]["test-best"].values()} == {"attacked"}
    assert part["sweep"] is None


def test_without_an_examination_nothing_is_inferred() -> None:
    """Nobody could say whether the inference is to be trusted."""
    examples = linear_examples()
    result = evaluate(
        Sum(),
        examples.inputs,
        examples.labels,
        epsilons=EPSILONS,
        attacks="test-best,test-remaining",
        examine=False,
    )
    assert result.summary["sweep"] == "each"
    assert defense(result)["sweep"] is None


@pytest.mark.whole
@pytest.mark.usefixtures("gradients_alone")
def test_a_sweep_is_the_same_on_many_workers_and_continued(tmp_path: Path) -> None:
    """Law 4: nothing depends on the order in which shards come, or on what was stored before."""
    config = RunConfig(
        defenses=("relu-at",),
        attacks="apgd-ce,apgd-dlr",
        n=12,
        shard_size=4,
        epsilons=("0.05", "0.1", "0.2"),
        escalate=False,
        out=tmp_path / "alone",
        workers=0,
    )
    alone = figures(run(prepare(config)).summary)
    assert figures(run(prepare(config)).summary) == alone  # from what is stored
    many = dataclasses.replace(config, out=tmp_path / "many", workers=2)
    assert figures(run(prepare(many)).summary) == alone
    assert figures(run(prepare(many)).summary) == alone


@pytest.mark.usefixtures("gradients_alone")
def test_what_was_attacked_whole_stays_whole(tmp_path: Path) -> None:
    """A run at each epsilon is not made less by a later command that would have inferred."""
    each = RunConfig(
        defenses=("relu",),
        attacks="fgsm",
        n=12,
        epsilons=("0.1", "0.2", "0.3"),
        escalate=False,
        sweep="each",
        workers=0,
        out=tmp_path,
    )
    rows = run(prepare(each)).summary["defenses"]["relu"]["attacks"]["fgsm"]
    assert rows["0.1"]["broken"] > 12 - rows["0.1"]["attacked"]  # else nothing could be inferred
    later = run(prepare(dataclasses.replace(each, sweep="bracket")))
    assert later.summary["defenses"]["relu"]["attacks"]["fgsm"] == rows


def test_the_sample_is_a_tenth_of_the_examples_and_follows_from_the_seed() -> None:
    """At least one pair; another seed takes others."""
    pairs = [Inferred("a", "0.1", i) for i in range(40)]
    pairs += [Inferred("a", "0.2", i) for i in range(20)]
    assert len(sample(pairs, 0)) == 4
    assert sample(pairs, 0) == sample(pairs[::-1], 0)
    assert any(sample(pairs, 0) != sample(pairs, seed) for seed in range(1, 4))
    assert len(sample(pairs[:1], 0)) == 1
    assert sample([], 0) == []
