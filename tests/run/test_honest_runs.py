"""Honest runs of difficult models verify, and whatever they left behind counts."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch

from bench.attacks.probes import ProbeBehaviour
from bench.errors import UsageError
from bench.matrix.judge import DRAWS
from bench.record.schema import Cell
from bench.record.store import RunStore, open_run
from bench.registry import register_attack
from bench.run.evaluation import evaluate
from bench.run.rebuild import Source
from bench.run.recompute import recompute
from bench.run.sampling import Sampling
from bench.run.verification import verify_run
from tests.plugins import Best
from tests.run.forging import Forger, small_run
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.api import Problem, Proposal


class Noisy(Sum):
    """`Sum` with noise on its sum: wrong in some draws, and in more of them near the border."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (-s, s) of another s each time."""
        s = (x - 0.5).flatten(1).sum(dim=1) * self.scale + 0.2 * torch.randn(len(x))
        return torch.stack([-s, s], dim=1)


class Batched(Sum):
    """`Sum` less the mean of its batch: what it says of an image depends on the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (-s, s); alone, by the sum itself."""
        s = (x - 0.5).flatten(1).sum(dim=1) * self.scale
        s = s - 0.5 * s.mean() if len(x) > 1 else s
        return torch.stack([-s, s], dim=1)


class Jumping(Sum):
    """`Sum`, but in company the other way round where a pixel left the range of all examples.

    So answers a model at a point on one of its jumps: in a batch and alone rounding differs.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (-s, s)."""
        logits = super().forward(x)
        left = ((x < 0.3) | (x > 0.7)).flatten(1).any(dim=1) & (len(x) > 1)
        return torch.where(left[:, None], -logits, logits)


@register_attack("test-raises-later")
class RaisesLater(Best):
    """`Best` on full shards; raises on the last one, which is smaller."""

    def run(self, problem: Problem) -> Proposal:
        """Step, or fail."""
        if len(problem.inputs) < 4:
            raise RuntimeError("enough")
        return super().run(problem)


#: What an examination asks for here, which it takes to be little.
MEASURED = [Cell(attack="probe-gradients", epsilon="0.02", scope="evidence")]
MODELS = """\
from tests.run.test_honest_runs import Batched, Jumping, Noisy
from tests.toy_models import Sum
"""


@pytest.fixture
def model(tmp_path: Path) -> Callable[[str], str]:
    """`--model` for one of the models here."""
    file = tmp_path / "models.py"
    file.write_text(MODELS)
    return lambda name: f"{file}:{name}"


def noisy(out: Path, attacks: str, epsilons: list[str]) -> Path:
    """A run of a randomised model, in which many examples are wrong in some draws."""
    examples = linear_examples(20)
    result = attack_only(
        Noisy(), examples.inputs, examples.labels, epsilons=epsilons, attacks=attacks,
        shard_size=8, out=out,
    )  # fmt: skip
    assert result.folder is not None
    return result.folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a randomised model whose stored examples are wrong in most draws."""
    return noisy(tmp_path_factory.mktemp("drawn"), "test-best", ["0.03"])


def test_an_honest_run_of_a_randomised_model_holds(
    tmp_path: Path, model: Callable[[str], str]
) -> None:
    """The nearest examples are wrong in half of the draws, more or fewer by chance."""
    folder = noisy(tmp_path / "runs", "test-best,test-minimum", ["0.01", "0.03"])
    findings = verify_run(folder, model=model("Noisy"), device="cpu")
    assert findings.faults == []
    assert findings.examples > 0


def fewer(frame: Any) -> None:
    """What is broken, in as few draws as can be."""
    high = frame["attacked"] & frame["broken"]
    for column in ("wrong_draws", "choice_wrong_draws"):
        frame.loc[high, column] = DRAWS // 2 + 1


def better(frame: Any) -> None:
    """Each example a little better."""
    for column in ("wrong_draws", "choice_wrong_draws"):
        frame[column] = (frame[column] - 12).clip(lower=0)


def once(frame: Any) -> None:
    """One answer, as a deterministic model gives it."""
    frame["draws"] = 1
    for column in ("wrong_draws", "choice_wrong_draws"):
        frame[column] = frame["broken"].astype("int64")


@pytest.mark.parametrize(
    ("change", "attacks", "expected"),
    [
        (fewer, ("",), "model, the adversarial examples: wrong in"),
        (better, ("clean",), "model, unperturbed: wrong in"),
        (once, ("", "clean"), "differs from answer to answer"),
    ],
)
def test_forged_draws_are_found(
    change: Callable[[Any], None],
    attacks: tuple[str, ...],
    expected: str,
    drawn: Path,
    tmp_path: Path,
    model: Callable[[str], str],
) -> None:
    """A difference that is no chance, and one answer in place of a hundred draws."""
    forger = Forger(shutil.copytree(drawn, tmp_path / drawn.name))
    for attack in attacks:
        forger.change_outcomes(change, attack)
    forger.rewrite()
    faults = verify_run(forger.folder, model=model("Noisy"), device="cpu").faults
    assert any(expected in fault for fault in faults), faults


def test_an_honest_run_of_a_model_that_depends_on_its_batch_holds(
    tmp_path: Path, model: Callable[[str], str]
) -> None:
    """No batch of stored examples is the batch that they were found in: each is asked alone."""
    folder = small_run(Batched(), tmp_path / "runs", epsilons=["0.02", "0.05"])
    findings = verify_run(folder, model=model("Batched"), device="cpu")
    assert findings.faults == []
    assert findings.examples > 0


def test_an_honest_run_of_a_model_that_jumps_holds(
    tmp_path: Path, model: Callable[[str], str]
) -> None:
    """Wrong in its batch and right alone is unbroken, by the margin that it has alone."""
    folder = small_run(Jumping(), tmp_path / "runs", attacks="test-best", epsilons=["0.02"])
    (cell,) = Forger(folder).cells("test-best")
    frame = pd.concat([shard.frame for shard in RunStore(folder).shards(cell["key"])])
    unbroken = frame[frame["attacked"] & ~frame["broken"]]
    assert (unbroken["prediction"] == unbroken["label"]).all()
    assert (unbroken["margin"] > 0).all()
    assert verify_run(folder, model=model("Jumping"), device="cpu").faults == []


def test_a_model_that_was_never_asked_is_named(tmp_path: Path, model: Callable[[str], str]) -> None:
    """Its clean predictions failed, and with them all cells: nothing of it is called proven."""
    folder = small_run(Sum(), tmp_path / "runs", attacks="fgsm", epsilons=["0.02"])
    forger = Forger(folder)
    for cell in (*forger.cells("clean"), *forger.cells()):
        shutil.rmtree(folder / "cells" / cell["key"])
    shutil.rmtree(folder / "adversarial", ignore_errors=True)
    forger.change_cells(lambda cell: True, status="failed", cause="no-clean", reason="it raised")
    forger.rewrite()
    findings = verify_run(folder, model=model("Sum"), device="cpu")
    assert findings.faults == []
    assert "model has no clean predictions: nothing was asked of it again" in findings.notes
    assert not any(claim.startswith("clean accuracy") for claim in findings.proven)


def worst(folder: Path, epsilon: str) -> float:
    """The worst case of the stored summary."""
    summary = json.loads((folder / "summary.json").read_bytes())
    return float(summary["defenses"]["model"]["worst_case"][epsilon]["robust_accuracy"])


def test_what_an_unfinished_cell_broke_counts(tmp_path: Path, model: Callable[[str], str]) -> None:
    """Its stored shards do, in the worst case alone, and the run holds."""
    folder = small_run(
        Sum(), tmp_path / "runs", attacks="test-raises-later", epsilons=["0.05"]
    )  # fmt: skip
    (cell,) = Forger(folder).cells("test-raises-later")
    assert cell["status"] == "failed"
    found = Forger(folder).found()
    assert found
    assert worst(folder, "0.05") == 1 - len(found) / 8
    findings = verify_run(folder, model=model("Sum"), device="cpu")
    assert findings.faults == []
    again = recompute(folder, Sampling.parse("all", 0), Source("cpu", model=model("Sum")))
    assert again.differences == ()


def test_what_a_replaced_cell_broke_counts(tmp_path: Path, model: Callable[[str], str]) -> None:
    """An attack on what others left attacks less once others find more: nothing is forgotten."""
    out = tmp_path / "runs"
    small_run(Sum(), out, attacks="test-remaining", epsilons=["0.05"])
    folder = small_run(Sum(), out, attacks="test-remaining,test-minimum", epsilons=["0.05"])
    _, stored = open_run(folder)
    assert [cell.attack for cell in stored.replaced] == ["test-remaining"]
    findings = verify_run(folder, model=model("Sum"), device="cpu")
    assert findings.faults == []
    again = small_run(Sum(), out, attacks="test-remaining", epsilons=["0.05"])
    assert open_run(again)[1].replaced != []
    assert verify_run(again, model=model("Sum"), device="cpu").faults == []


def test_an_examined_run_that_was_continued_without_examining_holds(
    tmp_path: Path, model: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its examination was made, and is about other outcomes: nobody is called examined now."""
    for room in ("inquiry", "verification.weighing"):
        monkeypatch.setattr(f"bench.run.{room}.requests", lambda case, menu: MEASURED)
        monkeypatch.setattr(f"bench.run.{room}.escalate", lambda *_: [])
    out = tmp_path / "runs"
    folder = small_run(Sum(), out, attacks="fgsm", epsilons=["0.02"], examine=True)
    assert open_run(folder)[1].examined("model") == ["0.02"]
    small_run(Sum(), out, attacks="fgsm,test-best", epsilons=["0.02"])
    assert open_run(folder)[1].examined("model") == []
    assert verify_run(folder, model=model("Sum"), device="cpu").faults == []
    small_run(Sum(), out, attacks="fgsm,test-best", epsilons=["0.02"], examine=True)
    assert open_run(folder)[1].examined("model") == ["0.02"]
    assert verify_run(folder, model=model("Sum"), device="cpu").faults == []


def test_a_run_keeps_the_size_of_its_shards(tmp_path: Path, model: Callable[[str], str]) -> None:
    """Another one is refused before anything is written; where none is given, it is the stored."""
    out, examples = tmp_path / "runs", linear_examples(8)
    folder = small_run(Sum(), out, attacks="fgsm", epsilons=["0.02"])
    before = (folder / "run.json").read_bytes()

    def extended(size: int | None) -> None:
        attack_only(
            Sum(), examples.inputs, examples.labels, epsilons=["0.02"], attacks="test-best",
            shard_size=size, out=out,
        )  # fmt: skip

    with pytest.raises(UsageError, match=r"--shard-size 3: .* holds shards of 5 examples.*--fresh"):
        extended(3)
    assert (folder / "run.json").read_bytes() == before
    extended(None)
    assert {cell.attack for cell in open_run(folder)[1].cells} == {"clean", "fgsm", "test-best"}
    assert verify_run(folder, model=model("Sum"), device="cpu").faults == []


def test_survivors_of_a_replaced_cell_still_say_what_was_left_out(
    tmp_path: Path, model: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep inferred from them; another attack then left less to attack at their epsilon."""
    for room in ("inquiry", "verification.weighing"):
        monkeypatch.setattr(f"bench.run.{room}.requests", lambda case, menu: [])
    out, examples = tmp_path / "runs", linear_examples(8)
    sweeps = {"test-remaining": ["0.005", "0.01"], "test-remaining,test-minimum": ["0.01"]}
    for attacks, epsilons in sweeps.items():
        result = evaluate(
            Sum(), examples.inputs, examples.labels, epsilons=epsilons, attacks=attacks,
            headline="0.01", shard_size=5, escalate=False, out=out,
        )  # fmt: skip
    folder = result.folder
    assert folder is not None
    _, stored = open_run(folder)
    assert [(c.status, c.epsilon) for c in stored.replaced] == [("ok", "0.01")]
    assert any(cell.inferred for cell in stored.cells)
    assert verify_run(folder, model=model("Sum"), device="cpu").faults == []
    found = recompute(folder, Sampling.parse("all", 0), Source("cpu", model=model("Sum")))
    assert found.whole


def test_what_a_killed_command_stored_is_adopted(
    tmp_path: Path, model: Callable[[str], str]
) -> None:
    """A cell that no record names yet: the next command names it, whatever it asks for."""
    out = tmp_path / "runs"
    whole = small_run(Sum(), tmp_path / "other", attacks="test-best", epsilons=["0.05"])
    folder = small_run(Sum(), out, attacks="test-lies", epsilons=["0.05"])
    for part in ("cells", "adversarial"):
        shutil.copytree(whole / part, folder / part, dirs_exist_ok=True)
    assert worst(folder, "0.05") == 1.0
    small_run(Sum(), out, attacks="test-lies", epsilons=["0.05"])
    assert worst(folder, "0.05") == worst(whole, "0.05") < 1
    assert verify_run(folder, model=model("Sum"), device="cpu").faults == []


def test_a_probe_that_has_learnt_more_since_is_read_and_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Callable[[str], str]
) -> None:
    """A run of a version that did not measure it, continued: the new cell and what it declares."""

    def told(folder: Path) -> str:
        (items,) = json.loads((folder / "evidence.json").read_text()).values()
        (found,) = [each for each in items if each["id"] == "jump-at-border"]
        return str(found["status"])

    with monkeypatch.context() as before:
        before.setattr(ProbeBehaviour, "version", ProbeBehaviour.version - 1)
        traces = tuple(name for name in ProbeBehaviour.traces if name != "border_jump")
        before.setattr(ProbeBehaviour, "traces", traces)
        folder = small_run(Sum(), tmp_path / "runs", examine=True)
        assert told(folder) == "not run"

    assert small_run(Sum(), tmp_path / "runs", examine=True) == folder

    assert told(folder) == "pass"
    assert verify_run(folder, model=model("Sum"), device="cpu").faults == []
