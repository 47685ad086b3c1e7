"""Everything that follows from the outcomes, computed again: summary, evidence, verdict, tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import StoreError
from bench.record.damage import DAMAGE, first_line
from bench.record.files import canonical_json, read_bytes, read_json
from bench.record.schema import EXTERNAL
from bench.record.summary import build
from bench.report import render_leaderboard
from bench.run.menu import menu_of
from bench.run.recording import evidence_file, examined
from bench.run.verification.claims import older
from bench.run.verification.findings import listed
from bench.threat import Epsilon, Norm
from bench.trust import cases, escalate, evidence_of, pending, requests

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.record.results import CellResult
    from bench.record.schema import Cell, RunRecord
    from bench.record.store import RunStore
    from bench.run.verification.findings import Findings


def check_record_file(store: RunStore, record: RunRecord, findings: Findings) -> bool:
    """Whether `run.json` says the same when it is written again; what it says beside that is named.

    Of an older version's, nothing further is checked.
    """
    said = read_json(store.folder / "run.json")
    again = record.model_dump(mode="json", by_alias=True)
    if not record.figures or "figures" not in said:
        findings.fault(OLDER.format("run.json"))
        return False
    unknown = sorted(said.keys() - again.keys())
    if unknown:
        findings.note(f"run.json has keys that this Winnow does not know: {listed(unknown)}")
        findings.recorded.append(f"run.json: {listed(unknown)}")
    for path in differences(again, {key: said[key] for key in said.keys() & again.keys()}):
        if path not in LATER or path in said:
            findings.fault(f"run.json: {path} is not as Winnow writes it")
    return True


def check_summary(
    store: RunStore,
    record: RunRecord,
    results: dict[str, list[CellResult]],
    findings: Findings,
) -> None:
    """Summary, evidence and verdict from the outcomes, and the leaderboard from the summary."""
    try:
        summary = build(record, results, examined(record, results))
        files = {
            "summary.json": canonical_json(summary),
            "evidence.json": canonical_json(evidence_file(summary)),
            "leaderboard.md": render_leaderboard([summary]).encode(),
        }
        _check_examinations(record, results, findings)
    except DAMAGE as error:  # outcomes that no run makes: what weighs them trusts them
        findings.fault(
            "nothing follows from these outcomes: weighing them ends in "
            f"{type(error).__name__}: {first_line(error)}"
        )
        return
    for name, expected in files.items():
        try:
            if read_bytes(store.folder / name) == expected:
                continue
            wrong = [""]
            if name != "leaderboard.md":
                stored = read_json(store.folder / name)
                if name == "summary.json" and _is_older(stored):
                    findings.fault(OLDER.format(name))
                    return
                true = summary if name == "summary.json" else evidence_file(summary)
                wrong = [f": {path}" for path in differences(true, stored) or ["its form"]]
            for where in wrong:
                findings.fault(f"{name}{where} does not follow from the outcomes")
        except StoreError as error:
            findings.fault(str(error))


#: Keys of `run.json` that runs of before lack, and mean their defaults by it.
LATER = ("replaced", "variant")
#: What to say of a file of an older version.
OLDER = "{} is an older version's: run its command again, which computes nothing anew"


def _is_older(summary: object) -> bool:
    """Whether a summary was written before examinations had their place."""
    parts = summary.get("defenses") if isinstance(summary, dict) else None
    return isinstance(parts, dict) and any(
        isinstance(part, dict) and "examinations" not in part for part in parts.values()
    )


def differences(expected: object, actual: object, path: str = "") -> list[str]:
    """The paths at which two JSON values differ, at most ten."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [
            difference
            for key in sorted(expected.keys() | actual.keys(), key=str)
            for difference in differences(
                expected.get(key), actual.get(key), f"{path}.{key}" if path else str(key)
            )
        ]
        return found[:10]
    # As bytes: True is no 1, and 1 no 1.0.
    same = canonical_json(expected) == canonical_json(actual)
    return [] if same else [path or "everything"]


def _check_examinations(
    record: RunRecord, results: dict[str, list[CellResult]], findings: Findings
) -> None:
    """Where a defense is called examined, the cells are there that its evidence asks for.

    Without them evidence is "not run", which speaks against nobody.
    """
    norm, classes = Norm(record.norm), len(record.dataset.class_names)
    menu = menu_of(norm, record.dataset.shape, classes)
    for name, case in cases(record, results).items():
        entry = record.defenses[name]
        cells = [cell for cell in record.cells if cell.defense == name]
        now = record.outcomes(name)
        for written in sorted(entry.examined.keys() - {*record.epsilons}):
            findings.fault(f"{name} is called examined at {written}, no epsilon of the run")
        _check_hidden(record, name, findings)
        here = [e for e in case.epsilons if entry.examined.get(e.text) == now]
        if here and case.clean is None:
            findings.fault(f"{name} is called examined, without clean predictions")
            continue
        if entry.control:
            continue  # it gets what its defense asks for
        # An earlier command's budget may have left undone what this examination does not need.
        done = [cell for cell in cells if cell.status in ("ok", "failed")]
        imported = any(cell.attack.startswith(EXTERNAL) for cell in cells)
        for epsilon in here:
            this = case.at_epsilon(epsilon)
            evidence = evidence_of(this)
            asked: list[Cell] = [*requests(this, menu)]
            if not imported:  # with files of others, what was asked for before they came is enough
                asked += pending(evidence)
                if record.escalation_budget is not None:
                    number = 1 + max(
                        (c.round for c in done if c.epsilon == epsilon.text), default=0
                    )
                    asked += escalate(evidence, this, menu, number)
            there = [cell for cell in cells if cell.status != "incomplete"]
            absent = sorted({f"{cell.label} @ {cell.epsilon}" for cell in _absent(asked, there)})
            if absent:
                findings.fault(
                    f"{name} is called examined at {epsilon}, and what its examination asks for "
                    f"is not there: {listed(absent)}{older(record)}"
                )


def _absent(asked: Iterable[Cell], cells: Iterable[Cell]) -> list[Cell]:
    """Those that a run has no cell of, however their epsilons are written."""
    there = {(c.attack, c.repeat, Epsilon.parse(c.epsilon)) for c in cells if c.epsilon != "0"}
    return [c for c in asked if (c.attack, c.repeat, Epsilon.parse(c.epsilon)) not in there]


def _check_hidden(record: RunRecord, name: str, findings: Findings) -> None:
    """An examination that was made and is not told of."""
    entry = record.defenses[name]
    measured = {
        cell.epsilon
        for cell in record.cells
        if (cell.defense, cell.scope, cell.status, cell.repeat) == (name, "evidence", "ok", 0)
        and cell.attack in record.attacks
        and record.attacks[cell.attack].approach == "probe"
        and cell.epsilon in record.epsilons
    }
    own = [cell for cell in record.cells if cell.defense == name]
    if entry.control or any(cell.status == "incomplete" for cell in own):
        return
    for epsilon in sorted(measured - entry.examined.keys()):
        findings.fault(f"{name} was measured at {epsilon}, and is not called examined there")
    if not entry.examined and any(c.scope in ("evidence", "check") or c.round for c in own):
        findings.fault(f"{name} has cells that an examination asks for, and is not called examined")
