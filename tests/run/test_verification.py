"""Verification finds a single changed byte, a false claim, and other weights or data."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import StoreError, UsageError
from bench.record.adversarial import Found, Smallest
from bench.record.outcomes import Outcomes
from bench.record.store import RunStore
from bench.run.verification import verify_run
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from pathlib import Path

FACTORY = "{file}:Sum"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `Sum` that broke some examples and left others."""
    examples = linear_examples()
    result = attack_only(
        Sum(),
        examples.inputs,
        examples.labels,
        epsilons=["0.02", "0.05"],
        attacks="test-best,test-minimum",
        shard_size=10,
        out=tmp_path_factory.mktemp("runs"),
    )
    assert result.folder is not None
    return result.folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return shutil.copytree(finished, tmp_path / finished.name)


@pytest.fixture
def factory(tmp_path: Path) -> str:
    """`--model` for `Sum`."""
    file = tmp_path / "my_model.py"
    file.write_text("from tests.toy_models import attack_only, Sum\n")
    return f"{file}:Sum"


def faults(run: Path, factory: str) -> list[str]:
    """What does not hold."""
    return verify_run(run, model=factory, device="cpu").faults


def test_a_finished_run_holds(run: Path, factory: str) -> None:
    """Nothing to complain of, and every adversarial example was judged again."""
    findings = verify_run(run, model=factory, device="cpu")
    assert findings.faults == []
    summary = json.loads((run / "summary.json").read_text())
    critical = summary["defenses"]["model"]["critical"]
    assert findings.examples == sum(d is not None for d in critical) > 0


def test_a_single_changed_byte_is_found_in_every_file(finished: Path, run: Path) -> None:
    """One bit flipped, in each file of the run in turn, the manifest included."""
    paths = [p for p in sorted(run.rglob("*")) if p.is_file() and p.name != ".lock"]
    assert len(paths) > 8
    store = RunStore(run)
    assert store.manifest_faults() == []
    for path in paths:
        for position in (0, path.stat().st_size // 2, path.stat().st_size - 1):
            data = bytearray(path.read_bytes())
            data[position] ^= 1
            path.write_bytes(bytes(data))
            assert store.manifest_faults(), f"{path.name}, byte {position}"
            data[position] ^= 1
            path.write_bytes(bytes(data))
    assert store.manifest_faults() == []


def test_a_missing_and_a_foreign_file_are_found(run: Path) -> None:
    """By name."""
    (run / "leaderboard.md").rename(run / "other.md")
    assert RunStore(run).manifest_faults() == [
        "leaderboard.md is missing",
        "other.md is not in the manifest",
    ]


def rewrite_manifest(run: Path) -> None:
    """What a cheat would do after changing a file."""
    RunStore(run).write_manifest()


def test_a_figure_that_does_not_follow_from_the_outcomes_is_found(run: Path, factory: str) -> None:
    """A better robust accuracy in the summary, with a manifest to match."""
    path = run / "summary.json"
    summary = json.loads(path.read_text())
    summary["defenses"]["model"]["worst_case"]["0.05"]["robust_accuracy"] = 0.9
    RunStore(run).write_json("summary.json", summary)
    rewrite_manifest(run)
    assert faults(run, factory) == [
        "summary.json: defenses.model.worst_case.0.05.robust_accuracy does not follow from the "
        "outcomes"
    ]


def test_outcomes_that_claim_more_than_the_proof_shows_are_found(run: Path, factory: str) -> None:
    """Broken examples in the outcomes without an adversarial example to show."""
    for folder in (run / "adversarial").iterdir():
        shutil.rmtree(folder)
    rewrite_manifest(run)
    found = faults(run, factory)
    assert found
    assert all("no stored adversarial example shows it" in fault for fault in found)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x, "is judged otherwise"),
        (lambda x: np.clip(x * 50 - 20, -3, 3).astype(np.float32), "is not in the box"),
    ],
)
def test_a_false_adversarial_example_is_found(  # type: ignore[no-untyped-def]
    run: Path, factory: str, spoil, message: str
) -> None:
    """One that is the clean input, and one that left the box."""
    (folder,) = (run / "adversarial").iterdir()
    smallest = Smallest(folder)
    first = min(smallest.all())
    clean = linear_examples().inputs[first].numpy()
    smallest.add([Found(first, -1.0, "forged", spoil(clean))])
    rewrite_manifest(run)
    found = faults(run, factory)
    assert any(message in fault for fault in found), found


def test_outcomes_that_call_a_broken_example_robust_are_found(run: Path, factory: str) -> None:
    """The summary follows from them no longer."""
    path = next(p for p in sorted(run.rglob("*.parquet")) if Outcomes.load(p).frame.broken.any())
    outcomes = Outcomes.load(path)
    outcomes.frame["broken"] = False
    outcomes.save(path)
    rewrite_manifest(run)
    assert any("does not follow from the outcomes" in fault for fault in faults(run, factory))


def test_other_weights_are_refused(run: Path, tmp_path: Path) -> None:
    """A model with another parameter is not the one that was evaluated."""
    file = tmp_path / "other.py"
    file.write_text(
        "import torch\nfrom tests.toy_models import attack_only, Sum\n\n"
        "def load():\n    model = Sum()\n    model.scale.data *= 2\n    return model\n"
    )
    with pytest.raises(UsageError, match="other weights"):
        verify_run(run, model=f"{file}:load", device="cpu")


@pytest.mark.parametrize("model", ["", "missing.py:load", "nothing"])
def test_a_program_s_own_model_has_to_be_named(run: Path, model: str) -> None:
    """With the form to write it in."""
    with pytest.raises(UsageError, match="--model"):
        verify_run(run, model=model, device="cpu")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(StoreError, match=r"no run in .*run\.json"):
        verify_run(tmp_path)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_flip_at_a_tiny_margin_is_a_fault_only_on_the_same_kind_of_device(
    run: Path, factory: str, device: str
) -> None:
    """An example that is right by a margin of 2e-6 where the run, elsewhere, called it broken."""
    record = json.loads((run / "run.json").read_text())
    record["judging"]["device"] = device
    store = RunStore(run)
    store.write_json("run.json", record)
    (folder,) = (run / "adversarial").iterdir()
    first = min(Smallest(folder).all())
    shutil.rmtree(folder)
    examples = linear_examples()
    tiny = torch.full((1, 4, 4), 0.5)
    tiny[0, 0, 0] += 1e-6 if examples.labels[first] == 1 else -1e-6
    distance = float((tiny - examples.inputs[first]).double().abs().max())
    Smallest(folder).add([Found(first, distance, "forged", tiny.numpy())])
    store.write_manifest()
    findings = verify_run(run, model=factory, device="cpu")
    judged = [text for text in findings.faults if "is judged otherwise" in text]
    noted = [text for text in findings.notes if "another processor or GPU" in text]
    assert (len(judged), len(noted)) == ((1, 0) if device == "cpu" else (0, 1))
