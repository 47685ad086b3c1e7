"""Verification: what a stored run claims, checked from its files by somebody who trusts nobody.

The manifest shows that no byte changed. The adversarial examples, judged again from the weights,
prove every worst-case figure. The summary, recomputed from the outcomes, has to come out the same.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import registry
from bench.data import open_dataset, subset
from bench.errors import CheckpointError, StoreError, UsageError, WinnowError
from bench.record.files import read_json
from bench.record.results import critical_distances, read_cells
from bench.record.schema import CLEAN
from bench.record.store import open_run
from bench.record.summary import build
from bench.report import render_leaderboard
from bench.run.prepare import resolve_device
from bench.run.recording import examined
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import nn

    from bench.api import Examples
    from bench.matrix.judge import Prediction
    from bench.record.outcomes import Found
    from bench.record.results import CellResult
    from bench.record.schema import RunRecord
    from bench.record.store import RunStore

#: A prediction that flips at a smaller margin on another kind of device is no fault.
FLIP_MARGIN = 1e-4


#: By how much a distance may differ when it is measured again in float64.
DISTANCE_TOLERANCE = 1e-9


@dataclass
class Findings:
    """What a verification found."""

    faults: list[str] = field(default_factory=list)
    """What does not hold, a sentence each."""
    notes: list[str] = field(default_factory=list)
    """What a reader should know, but does not invalidate the run."""
    files: int = 0
    examples: int = 0
    """Adversarial examples judged again."""


def verify_run(
    folder: Path,
    *,
    checkpoints: Mapping[str, Path] | None = None,
    dataset: str = "",
    model: str = "",
    device: str = "auto",
) -> Findings:
    """Check a run from its files.

    Args:
        folder: of the run.
        checkpoints: weights by defense, where they are not found by themselves.
        dataset: where the data are, when not where the run found them.
        model: `FILE:FACTORY` for a run of `evaluate()`.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.

    Raises:
        UsageError: there is no run, or its data or weights cannot be found.
    """
    store, record = open_run(folder)
    findings = Findings(files=len(store.files()))
    findings.faults += store.manifest_faults()
    try:
        results = read_cells(store, record)
    except WinnowError as error:
        findings.faults.append(str(error))
        return findings
    _check_summary(store, record, results, findings)
    examples = _examples(store, record, dataset)
    if examples.digest != record.dataset.digest:
        findings.faults.append(
            f"the data are not those of the run: digest {examples.digest[:12]} instead of "
            f"{record.dataset.digest[:12]}"
        )
        return findings
    place = resolve_device(device)
    for name in record.defenses:
        load = _loader(record, name, examples, checkpoints or {}, dataset, model)
        _Recheck(store, record, examples, place, findings).defense(name, load, results[name])
    return findings


def _check_summary(
    store: RunStore,
    record: RunRecord,
    results: dict[str, list[CellResult]],
    findings: Findings,
) -> None:
    """Recompute the summary from the outcomes, and the leaderboard from the summary."""
    summary = build(record, results, examined(record, results))
    stored = read_json(store.folder / "summary.json")
    older = any("examinations" not in part for part in stored.get("defenses", {}).values())
    if older or not record.figures:
        findings.faults.append(
            "run.json is an older version's: run its command again, which computes nothing anew"
        )
        return
    for path in _differences(summary, stored):
        findings.faults.append(f"summary.json: {path} does not follow from the outcomes")
    leaderboard = store.folder / "leaderboard.md"
    if not leaderboard.is_file() or leaderboard.read_text() != render_leaderboard([summary]):
        findings.faults.append("leaderboard.md does not follow from the outcomes")


def _differences(expected: object, actual: object, path: str = "") -> list[str]:
    """The paths at which two JSON values differ, at most ten."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [
            difference
            for key in sorted(expected.keys() | actual.keys())
            for difference in _differences(
                expected.get(key), actual.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
        return found[:10]
    plain = read_plain(expected)
    return [] if plain == actual else [path or "everything"]


def read_plain(value: object) -> object:
    """A value as it comes back from JSON: tuples as lists."""
    if isinstance(value, (list, tuple)):
        return [read_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: read_plain(item) for key, item in value.items()}
    return value


def _examples(store: RunStore, record: RunRecord, dataset: str) -> Examples:
    source = dataset or record.dataset.written
    if not source:
        return store.read_examples(record.dataset)
    try:
        return subset(open_dataset(source).load("test"), record.dataset.n)
    except UsageError as error:
        raise UsageError(f"{error}; say where the data are with --dataset") from error


def _loader(
    record: RunRecord,
    name: str,
    examples: Examples,
    checkpoints: Mapping[str, Path],
    dataset: str,
    model: str,
) -> Callable[[], nn.Module]:
    """What makes a defense's module, weights loaded."""
    from bench.models.contenders import Lineup

    # What executes a file is named by whoever verifies, never by the record alone.
    if not record.dataset.written or registry.defenses.create(name).executes:
        return functools.partial(factory_model, model, name)
    given = {key: path for key, path in checkpoints.items() if key == name}
    return Lineup(dataset or record.dataset.written, examples, given).asked([name])[0].load


def factory_model(written: str, name: str) -> nn.Module:
    """The model that `FILE:FACTORY` makes: a function without arguments in a Python file.

    Raises:
        UsageError: nothing given, no such file or function, or it makes no module.
    """
    if not all(written.rpartition(":")):
        raise UsageError(
            f"the run evaluated a program's own model ({name}); say what makes it with "
            "--model FILE:FACTORY, such as --model my_model.py:load"
        )
    try:
        made = registry.defenses.create(f"file:{written}")
        return made.build(network="", shape=(1, 1, 1), classes=1).eval()
    except UsageError as error:
        raise UsageError(f"--model: {error}") from error


@dataclass
class _Recheck:
    """Judges the stored predictions and adversarial examples of a run again."""

    store: RunStore
    record: RunRecord
    examples: Examples
    device: str
    findings: Findings

    def defense(self, name: str, load: Callable[[], nn.Module], results: list[CellResult]) -> None:
        """Check one defense: weights, clean predictions, adversarial examples."""
        from bench.models.checkpoints import weights_digest
        from bench.models.counted import CountedModel

        entry = self.record.defenses[name]
        module = load()
        if weights_digest(module) != entry.weights_digest:
            raise CheckpointError(
                f"{name}: these are other weights (digest {weights_digest(module)[:12]}) than "
                f"those of the run ({entry.weights_digest[:12]}); name them with --checkpoint"
            )
        if not results:
            return
        model = CountedModel(module, self.examples.classes, None, self.device)
        clean = next((r for r in results if r.cell.attack == CLEAN), None)
        if clean is not None:
            self._clean(name, model, clean)
        try:
            found = self.store.smallest(entry.key).all()
        except StoreError as error:
            self.findings.faults.append(str(error))
            return
        self._adversarial(name, model, found)
        self._coverage(name, found, results)

    def _clean(self, name: str, model: nn.Module, clean: CellResult) -> None:
        size = self.record.shard_size
        for start in range(0, len(self.examples), size):
            block = self.examples.take(range(start, min(start + size, len(self.examples))))
            prediction = self._predict(model, block)
            stored = clean.frame["broken"].to_numpy()[start : start + size]
            for i, (now, then) in enumerate(zip(prediction.wrong.tolist(), stored, strict=True)):
                if now != bool(then):
                    self._flip(f"{name}: example {start + i}, unperturbed", prediction, i)

    def _adversarial(self, name: str, model: nn.Module, found: dict[int, Found]) -> None:
        import numpy as np
        import torch

        norm = Norm(self.record.norm)
        items = [found[index] for index in sorted(found)]
        for start in range(0, len(items), 50):
            block = items[start : start + 50]
            clean = self.examples.take([item.example for item in block])
            moved = torch.from_numpy(np.stack([item.input for item in block]))
            prediction = self._predict(model, clean, moved)
            distances = norm.distance(clean.inputs, moved).tolist()
            inside = ((moved >= 0) & (moved <= 1)).flatten(1).all(dim=1).tolist()
            for i, item in enumerate(block):
                where = f"{name}: the adversarial example of example {item.example}"
                self.findings.examples += 1
                if not inside[i]:
                    self.findings.faults.append(f"{where} is not in the box [0, 1]")
                if not abs(distances[i] - item.distance) <= DISTANCE_TOLERANCE:
                    self.findings.faults.append(
                        f"{where} is at {norm} distance {distances[i]:.9g}, not {item.distance:.9g}"
                    )
                if not prediction.wrong[i]:
                    self._flip(where, prediction, i)

    def _coverage(self, name: str, found: dict[int, Found], results: list[CellResult]) -> None:
        """Every example that the outcomes call broken has to have its proof."""
        import numpy as np

        critical = critical_distances(results, self.record.norm)
        for index in np.flatnonzero(np.isfinite(critical) & (critical > 0)).tolist():
            proof = found.get(index)
            if proof is None or proof.distance > critical[index] + DISTANCE_TOLERANCE:
                self.findings.faults.append(
                    f"{name}: example {index} is called broken at {critical[index]:.9g}, "
                    "but no stored adversarial example shows it"
                )

    def _predict(self, model: nn.Module, clean: Examples, moved: object = None) -> Prediction:
        from bench.matrix.judge import predict
        from bench.models.counted import full_precision, one_thread

        inputs = clean.inputs if moved is None else moved
        with full_precision(), one_thread(self.device):
            return predict(model, inputs.to(self.device), clean.labels.to(self.device))  # type: ignore[attr-defined]

    def _flip(self, where: str, prediction: Prediction, i: int) -> None:
        margin = abs(float(prediction.margins[i]))
        other_device = self.device.partition(":")[0] != self.record.judging["device"]
        text = f"{where} is judged otherwise (margin {margin:.2g})"
        if other_device and margin < FLIP_MARGIN:
            self.findings.notes.append(f"{text}, on another kind of device")
        else:
            self.findings.faults.append(text)
