"""Verification: what a stored run claims, checked from its files by somebody who trusts nobody.

The folder holds what its record names and nothing else, as the manifest says. The record agrees
with data, weights and code. Outcomes keep every rule of outcomes; summary, evidence, verdict and
leaderboard are recomputed from them. The adversarial examples, judged again, prove what is broken,
and every one that is stored counts. What is left is listed as recorded, and is not called proven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import StoreError
from bench.record.results import read_cells
from bench.record.schema import CLEAN, EXTERNAL
from bench.record.store import MANIFEST, open_run
from bench.run.devices import resolve_device
from bench.run.verification.claims import (
    check_attacks,
    check_cells,
    check_data,
    check_defenses,
    check_identity,
    check_skipped,
)
from bench.run.verification.findings import Findings, listed
from bench.run.verification.folder import irregular, unaccounted
from bench.run.verification.outcomes import check_outcomes, check_values
from bench.run.verification.proofs import Recheck
from bench.run.verification.sources import Sources
from bench.run.verification.weighing import check_record_file, check_summary

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.record.results import CellResult
    from bench.record.schema import DatasetRecord, RunRecord

__all__ = ["Findings", "verify_run"]


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
    findings = Findings()
    if folder.is_dir() and (strange := irregular(folder)):
        for text in strange:
            findings.fault(text)
        return findings  # nothing is read through them
    store, record = open_run(folder)
    sources = Sources(dataset, model, checkpoints)
    findings.files = len(store.files())
    wrong = [*store.manifest_faults(), *unaccounted(folder, record)]
    older = any(
        text.startswith(("run.json was changed", f"{MANIFEST} is missing")) for text in wrong
    )
    if older and record.status in ("running", "interrupted"):
        findings.fault("the run did not finish: run its command again")
        return findings
    for text in wrong:
        findings.fault(text)
    if not check_record_file(store, record, findings):
        return findings
    examples, data = sources.examples(store, record)
    before = len(findings.faults)
    check_data(record, data, sources, findings)
    if len(findings.faults) > before:
        return findings
    check_cells(record, findings)
    contenders = sources.contenders(record, examples)
    check_defenses(record, contenders, findings)
    check_attacks(record, findings)
    check_skipped(record, contenders, findings)
    try:
        results = read_cells(store, record)
    except StoreError as error:
        findings.fault(str(error))
        return findings
    sound = [check_values(own, examples, findings) for own in results.values()]
    if not all(sound):
        return findings
    check_identity(record, results, contenders, findings)
    for own in results.values():
        check_outcomes(own, record, findings)
    check_summary(store, record, results, findings)
    place = resolve_device(device)
    for name, contender in contenders.items():
        Recheck(store, record, examples, place, findings).defense(contender, results[name])
    _tell(record, data, results, sources, findings)
    return findings


def _tell(
    record: RunRecord,
    true: DatasetRecord,
    results: Mapping[str, list[CellResult]],
    sources: Sources,
    findings: Findings,
) -> None:
    """Say what was proven, and of everything else that the run says, that it was not."""
    drawn = any(int(r.frame["draws"].max()) > 1 for own in results.values() for r in own)
    own_data = sources.from_folder(record)
    findings.proven.append(f"weights: {', '.join(record.defenses)}")
    asked = [name for name, own in results.items() if any(r.cell.attack == CLEAN for r in own)]
    for name in record.defenses:
        if name not in asked:
            findings.note(f"{name} has no clean predictions: nothing was asked of it again")
    if asked:
        findings.proven.append(
            f"clean accuracy: {record.dataset.n} examples, asked again of {', '.join(asked)}"
        )
    findings.proven += [
        f"broken outcomes: {findings.examples} adversarial examples judged again, in the box, at "
        "their distance, one for every example that is called broken",
        "summary, evidence, verdict and leaderboard: they follow from the outcomes",
    ]
    findings.recorded += [
        "unbroken outcomes: that an attack was made and failed; a robust accuracy is an upper "
        "bound",
        "rows: which attack broke an example, beside the nearest stored adversarial example",
        "measured columns, traces, flags and margins of single attacks, from which evidence and "
        "verdict follow",
        "passes and seconds; failed, skipped and replaced cells and their causes; rounds of "
        "escalation, sweep and budgets; status; whether an examination was made",
        "seed, headline, names of checkpoints, texts of errors; command, commit, versions, device "
        "and date",
    ]
    if drawn:
        findings.recorded.append(
            "draws: those of candidates other than the nearest stored one of each example"
        )
    data = f"data: {true.name}, digest {true.digest[:12]}"
    if own_data:
        findings.recorded.append(
            f"{data}, and the names of its classes: they lie in the run's folder (--dataset)"
        )
    else:
        findings.proven.insert(0, data)
    foreign = sorted({cell.attack for cell in record.cells if cell.attack.startswith(EXTERNAL)})
    if foreign:
        findings.recorded.append(f"where adversarial examples come from: {listed(foreign)}")
    unfinished = sum(cell.status in ("failed", "incomplete") for cell in record.cells)
    if unfinished or record.status != "complete":
        findings.note(f"the run is {record.status}: {unfinished} of its cells did not finish")
    if not any(cell.attack != CLEAN for cell in record.cells):
        findings.note("no attack is in the run: nothing was tried against these defenses")
