"""Commands in this process and the current folder, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from bench import cli, registry
from bench.models.checkpoints import CheckpointRecord, read_record
from bench.record.schema import RunRecord

CHECKPOINTS = Path("results/checkpoints")
#: Linf, the paper's.
EPSILONS = {"mnist": "0.3", "cifar10-jpeg": "0.031"}


def winnow(*arguments: str | int | Path) -> str:
    """Standard output of `python -m bench` with exit code 0; its errors are raised."""
    done = CliRunner().invoke(cli.app, [str(each) for each in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def train(name: str, data: str, *options: str | int) -> CheckpointRecord:
    """Train a defense by one command, for an epoch unless the options say more; its record."""
    epochs = () if "--epochs" in options else ("--epochs", 1)
    winnow("train", "--defense", name, "--dataset", data, "--device", "cpu", *epochs, *options)
    return record_of(name)


def record_of(name: str, seed: int = 0) -> CheckpointRecord:
    """The record of the only checkpoint of a defense and a seed."""
    canonical = registry.defenses.create(name).name
    records = [read_record(path) for path in CHECKPOINTS.glob("*.safetensors")]
    (found,) = [r for r in records if r and (r.defense, r.seed) == (canonical, seed)]
    return found


class Evaluated(NamedTuple):
    """The files of a run."""

    folder: Path
    record: RunRecord
    summary: dict[str, Any]


def run(name: str, data: str, *options: str | int) -> Evaluated:
    """Evaluate a defense by one command; the only run under the current folder."""
    winnow("run", "--defense", name, "--dataset", data, "--device", "cpu", "--workers", 0, *options)
    (file,) = Path("results/runs").glob("*/run.json")
    return Evaluated(
        file.parent,
        RunRecord.model_validate_json(file.read_bytes()),
        json.loads((file.parent / "summary.json").read_bytes()),
    )


def train_and_run(name: str, data: str, *, n: int = 10) -> tuple[CheckpointRecord, Evaluated]:
    """Train for an epoch, and evaluate with one attack at the paper's epsilon.

    What every defense leaves is checked: a checkpoint, and a finished run of its weights that says
    on which network, on how many examples, and no more robust than accurate.
    """
    trained = train(name, data)
    epsilon = EPSILONS[Path(data).name]
    evaluated = run(name, data, "--attacks", "fgsm", "--n", n, "--eps", epsilon, "--no-examine")
    _, record, summary = evaluated
    ((found, defense),) = record.defenses.items()
    figures = summary["defenses"][found]
    worst = figures["worst_case"][epsilon]
    assert found == trained.defense == registry.defenses.create(name).name
    assert (trained.epochs, record.status, summary["n"], worst["n"]) == (1, "complete", n, n)
    assert (defense.network, defense.weights_digest) == (trained.network, trained.weights_digest)
    assert figures["attacks"]["fgsm"][epsilon]["status"] == "ok"
    assert 0 <= worst["robust_accuracy"] <= figures["clean_accuracy"] <= 1
    return trained, evaluated
