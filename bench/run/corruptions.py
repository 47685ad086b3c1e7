"""Accuracy under common corruptions: a report of its own, beside the adversarial figures.

A corruption is drawn, not searched for, so that it says nothing on the worst case: it is no attack,
and no run counts it. Every answer is kept; all figures follow from them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data import open_dataset
from bench.data.corrupted import (
    COMMON,
    FURTHER,
    SEVERITIES,
    CorruptedCifar10,
    Corruptions,
    generated,
    stored,
)
from bench.errors import StoreError, UsageError
from bench.matrix.apart import apart, here
from bench.matrix.processes import COPY
from bench.record.files import digest_of, write_bytes, write_json
from bench.record.provenance import Surroundings, provenance
from bench.record.runs import read_summary, stored_runs
from bench.record.statistics import t_interval, wilson
from bench.report.corruptions import render_corruptions
from bench.run.devices import resolve_device
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd
    from torch import Tensor

    from bench.models.contenders import Contender

#: Of the file's form.
SCHEMA_VERSION = 1
#: Images given to a model at once where nothing is said.
BATCH = 250


@dataclass(frozen=True)
class CorruptionConfig:
    """What is asked of a report on corruptions."""

    defenses: tuple[str, ...]
    """As written."""
    dataset: str
    """Whose test images are corrupted, or `cifar10-c:PATH`; its training set identifies weights."""
    n: int
    """Images, the same ones in every kind and severity."""
    seed: int = 0
    """Of what is drawn: corruptions that are made, and models that draw."""
    device: str = "auto"
    batch_size: int = BATCH
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    """`--checkpoint`, by name as written."""
    runs: Path = Path("results/runs")
    """Where the adversarial figures of the same weights are looked for."""
    out: Path = Path("results/corruptions")
    fewer: bool = False
    """Whether all images there are will do where there are fewer."""
    command: str = ""


@dataclass(frozen=True)
class Answered:
    """What a defense answered."""

    name: str
    """Canonical."""
    weights_digest: str
    checkpoint: str
    """Where its weights are from."""
    answers: pd.DataFrame
    """A row per kind, severity and image: `index`, `label`, `prediction`; severity 0 is clean."""


def evaluate_corruptions(config: CorruptionConfig) -> tuple[dict[str, Any], Path]:
    """Ask defenses for all kinds and severities, and write what they answered.

    Returns:
        The content of `corruptions.json`, and its folder.

    Raises:
        UsageError: an unknown name, data that cannot be read or corrupted, or no weights.
        ModelError: a model that does not answer.
    """
    if not config.defenses:
        raise UsageError("no defense given; name one, such as --defense kwta")
    device = resolve_device(config.device)
    if device == "cpu":  # a guest may end the process that it runs in
        answered, about = apart(_ask, config, device, start=COPY)
    else:
        answered, about = here(_ask, config, device)
    report = {
        "schema": SCHEMA_VERSION,
        **about,
        "seed": config.seed,
        "defenses": {each.name: _entry(each, config.runs) for each in answered},
        "provenance": provenance(device, Surroundings.of(device), config.command),
    }
    identity = {e.name: e.weights_digest for e in answered}
    folder = config.out / digest_of({**about, "defenses": identity, "seed": config.seed})[:16]
    for name, data in _frames(answered).items():
        write_bytes(folder / name, data)
    write_json(folder / "corruptions.json", report)
    write_bytes(folder / "corruptions.md", render_corruptions(report).encode())
    return report, folder


def _corruptions(config: CorruptionConfig) -> Corruptions:
    dataset = open_dataset(config.dataset)
    if isinstance(dataset, CorruptedCifar10):
        return stored(dataset, config.n, fewer=config.fewer)
    return generated(dataset.choose("test", config.n, fewer=config.fewer), config.seed)


def _ask(
    say: Callable[[str], None], config: CorruptionConfig, device: str
) -> tuple[list[Answered], dict[str, Any]]:
    """What the defenses answer, and what the data are."""
    from bench.models.contenders import Lineup

    corruptions = _corruptions(config)
    kind = corruptions.kinds[0]
    first = corruptions.clean or corruptions.of(kind, SEVERITIES[0])
    lineup = Lineup(config.dataset, first, config.checkpoints, Norm.LINF, say)
    contenders = lineup.asked(config.defenses)
    about = {
        "dataset": corruptions.name,
        "made_by": corruptions.made_by,
        "n": len(first),
        "kinds": [*corruptions.kinds],
        "digest": first.digest,
    }
    parts = {(kind, s): None for kind in corruptions.kinds for s in SEVERITIES}
    rows: dict[str, list[pd.DataFrame]] = {each.name: [] for each in contenders}
    models = {each.name: _model(each, first.classes, config.batch_size, device)
              for each in contenders}  # fmt: skip
    for kind, severity in ([("clean", 0)] if corruptions.clean else []) + [*parts]:
        examples = corruptions.of(kind, severity) if severity else corruptions.clean
        for name, model in models.items():
            say(name)
            rows[name].append(_answers(model, examples, kind, severity, config.seed, device))
    import pandas as pd

    return [
        Answered(
            each.name,
            each.record.weights_digest,
            each.record.checkpoint or "",
            pd.concat(rows[each.name], ignore_index=True),
        )
        for each in contenders
    ], about


def _model(contender: Contender, classes: int, batch_size: int, device: str) -> Any:
    from bench.models.counted import CountedModel

    return CountedModel(contender.load(), classes, batch_size, device)


def _answers(
    model: Any, examples: Any, kind: str, severity: int, seed: int, device: str
) -> pd.DataFrame:
    """The predictions of a model on some examples."""
    import pandas as pd
    import torch

    from bench.models.ambient import plain_torch

    predicted: list[Tensor] = []
    with plain_torch(device, seed), torch.no_grad():
        for block in examples.blocks(BATCH):
            predicted.append(model(block.inputs.to(device)).argmax(dim=1).cpu())
    return pd.DataFrame(
        {
            "kind": kind,
            "severity": severity,
            "index": range(len(examples)),
            "label": examples.labels.numpy(),
            "prediction": torch.cat(predicted).numpy(),
        }
    )


def _frames(answered: list[Answered]) -> dict[str, bytes]:
    """The file of every answer."""
    import pandas as pd

    frame = pd.concat([each.answers.assign(defense=each.name) for each in answered])
    return {"answers.parquet": frame.to_parquet(index=False)}


def _entry(answered: Answered, runs: Path) -> dict[str, Any]:
    """The figures of one defense."""
    frame = answered.answers
    right = frame.assign(right=frame["label"] == frame["prediction"])
    means = right.groupby(["kind", "severity"])["right"].mean().reset_index()
    columns = (means[column].tolist() for column in ("kind", "severity", "right"))
    by_part = {
        (kind, severity): fraction for kind, severity, fraction in zip(*columns, strict=True)
    }
    kinds = [kind for kind in (*COMMON, *FURTHER) if (kind, SEVERITIES[0]) in by_part]
    common = [kind for kind in kinds if kind in COMMON]
    return {
        "weights_digest": answered.weights_digest,
        "checkpoint": answered.checkpoint,
        "clean_accuracy": by_part.get(("clean", 0)),
        "accuracy": {k: {str(s): by_part[k, s] for s in SEVERITIES} for k in kinds},
        "mean": mean_accuracy(frame, common),
        "mean_of": common,
        "adversarial": adversarial_figures(answered.name, answered.weights_digest, runs),
    }


def mean_accuracy(frame: pd.DataFrame, kinds: list[str]) -> dict[str, float] | None:
    """Accuracy over some kinds and all severities, each counting the same.

    The interval is over images, of each of which its own mean is taken: what becomes of one image
    in 75 corruptions is not 75 observations.

    Args:
        frame: as `Answered.answers`.
        kinds: over which; None comes of none.

    Returns:
        `accuracy`, and the ends `low` and `high` of its 95 % interval, within [0, 1].
    """
    some = frame[frame["kind"].isin(kinds)]
    if some.empty:
        return None
    right = (some["label"] == some["prediction"]).groupby(some["index"]).mean().tolist()
    mean, low, high = t_interval(right)
    if not math.isfinite(low) or low == high:  # one image, or all alike
        low, high = wilson(mean * len(right), len(right))
    return {"accuracy": mean, "low": max(0.0, low), "high": min(1.0, high)}


def adversarial_figures(name: str, weights_digest: str, runs: Path) -> list[dict[str, Any]]:
    """The worst case of the same weights in stored runs, one entry a run.

    Args:
        name: of the defense, canonical.
        weights_digest: of what is meant.
        runs: the folder of the runs.
    """
    found = []
    for run in stored_runs(runs):
        record = run.record.defenses.get(name) if run.record else None
        if record is None or record.weights_digest != weights_digest:
            continue
        try:
            summary = read_summary(run.folder)
        except StoreError:
            continue
        worst = summary["defenses"].get(name, {}).get("worst_case", {}).get(summary["headline"])
        if worst and worst["robust_accuracy"] is not None:
            kept = ("robust_accuracy", "low", "high", "n", "complete", "verdict")
            found.append(
                {
                    "run": run.folder.name,
                    "dataset": summary["dataset"],
                    "norm": summary["norm"],
                    "epsilon": summary["headline"],
                    **{key: worst.get(key) for key in kept},
                }
            )
    return found
