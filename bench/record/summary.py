"""`summary.json`: every figure of a run, recomputed from its outcomes.

Rows use each attack's own outcomes. The worst case and its curve give one adversarial example all
its consequences: found at norm d, it breaks its example at every epsilon >= d (DESIGN.md, law 2).
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from bench.record.outcomes import Totals
from bench.record.results import (
    CellResult,
    broken_within,
    correct_within,
    critical_distances,
    is_randomised,
)
from bench.record.schema import CLEAN, SCHEMA_VERSION
from bench.record.statistics import wilson
from bench.record.sweeps import checks, inferred_survivors, row_broken, sweep_report
from bench.threat import Epsilon

if TYPE_CHECKING:
    import numpy as np

    from bench.record.schema import CellRecord, DefenseRecord, RunRecord


#: In place of a verdict where no evidence was gathered.
NOT_EXAMINED = "not examined"
#: What an examination leaves of a defense.
EXAMINATION = ("verdict", "evidence", "marks", "comparison", "power")


def build(
    record: RunRecord,
    results: dict[str, list[CellResult]],
    examined: dict[str, dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """The dictionary of `summary.json` (its schema: DESIGN.md, `results/README.md`).

    Args:
        record: the run's.
        results: its finished cells, by defense.
        examined: what `bench.trust` says of each defense, to be put beside its figures.
    """
    parts = {
        name: _defense(record, name, results[name], (examined or {}).get(name, {}))
        for name in sorted(record.defenses)
    }
    return {
        "schema": SCHEMA_VERSION,
        "run": record.id,
        "dataset": record.dataset.name,
        "data_digest": record.dataset.digest,
        **({"data_notes": list(record.dataset.notes)} if record.dataset.notes else {}),
        "norm": record.norm,
        "n": record.dataset.n,
        "seed": record.seed,
        "epsilons": record.epsilons,
        "headline": record.headline,
        "judging": record.judging,
        "sweep": record.sweep,
        "limit": record.run_budget,
        "budget": record.escalation_budget,
        "figures": record.figures,
        "defenses": {n: part for n, part in parts.items() if not record.defenses[n].control},
        # Twins that were not asked for themselves: attacked where their defense is examined.
        "controls": {n: part for n, part in parts.items() if record.defenses[n].control},
        "provenance": record.provenance,
    }


def examinations(summary: dict[str, Any], part: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Evidence, verdict, marks and comparison by epsilon, where a defense was examined."""
    own = {key: part[key] for key in EXAMINATION if key in part}
    found = {summary["headline"]: own} if own.get("verdict") else {}
    return {**found, **part.get("examinations", {})}


def _defense(
    record: RunRecord, name: str, results: list[CellResult], examined: dict[str, Any]
) -> dict[str, Any]:
    import numpy as np

    entry = record.defenses[name]
    n = record.dataset.n
    cells = [cell for cell in record.cells if cell.defense == name]
    by_cell = {
        (r.cell.attack, r.cell.epsilon): r for r in results if not r.cell.repeat and r.finished
    }
    clean = by_cell.get((CLEAN, "0"))
    attacks: dict[str, dict[str, Any]] = defaultdict(dict)
    for cell in cells:
        if cell.attack != CLEAN and cell.scope not in ("evidence", "check"):
            found = by_cell.get((cell.attack, cell.epsilon))
            attacks[cell.attack][cell.epsilon] = _attack(cell, found, results, record)
    totals = sum((r.totals for r in results), start=Totals())
    critical = critical_distances(results, record.norm) if clean else None
    return {
        "network": entry.network,
        "weights_digest": entry.weights_digest,
        "checkpoint": entry.checkpoint,
        "twin": entry.twin,
        "published": _published(record, entry),
        "clean_accuracy": None if clean is None else _clean_accuracy(clean),
        "clean_correct": None if clean is None else int(n - clean.table["broken"].sum()),
        "cost": _cost(totals),
        "worst_case": {
            epsilon: {
                **_worst_case(record, results, critical, cells, epsilon),
                "verdict": examined.get("verdicts", {}).get(epsilon),
            }
            for epsilon in (_attacked(record, cells) if entry.control else record.epsilons)
        },
        "attacks": {attack: attacks[attack] for attack in sorted(attacks)},
        "suites": {
            suite: together
            for suite, members in sorted(record.suites.items())
            if (together := _together(members, attacks, by_cell, results, record))
        },
        "sweep": sweep_report(results, record.norm),
        # Per example the smallest norm that breaks it: 0 a clean error, null never broken. From
        # these alone every worst-case figure can be recomputed, and runs combined per example.
        "critical": None
        if critical is None
        else [float(d) if np.isfinite(d) else None for d in critical],
        **({"right": _right(record, results, clean)} if clean and is_randomised(results) else {}),
        **{key: value for key, value in examined.items() if key != "verdicts"},
        "failed": [
            {"attack": c.label, "epsilon": c.epsilon, "cause": c.cause, "reason": c.reason}
            for c in cells
            if c.status in ("failed", "incomplete")
        ],
        "skipped": [
            {"attack": attack, "cause": cause, "reason": reason}
            for attack, cause, reason in sorted(
                {(c.label, c.cause, c.reason) for c in cells if c.status == "skipped"}
            )
        ],
    }


def _right(
    record: RunRecord, results: list[CellResult], clean: CellResult
) -> dict[str, list[float]]:
    """Of a randomised defense, the share of draws in which each example is right, by epsilon."""
    unperturbed = 1 - clean.table["wrong_draws"] / clean.table["draws"]
    return {CLEAN: unperturbed.tolist()} | {
        epsilon: correct_within(results, record.norm, Epsilon.parse(epsilon)).tolist()
        for epsilon in record.epsilons
    }


def _attacked(record: RunRecord, cells: list[CellRecord]) -> list[str]:
    """The epsilons of a run at which a control has rows, and the headline."""
    rows = {cell.epsilon for cell in cells if cell.scope in ("all", "remaining")}
    return [epsilon for epsilon in record.epsilons if epsilon in {*rows, record.headline}]


def _published(record: RunRecord, entry: DefenseRecord) -> dict[str, Any] | None:
    """What others published, where it is about one of the run's epsilons, written as it is here."""
    if entry.published is None:
        return None
    theirs = Epsilon.parse(entry.published["epsilon"])
    ours = [written for written in record.epsilons if Epsilon.parse(written) == theirs]
    return {**entry.published, "epsilon": ours[0]} if ours else None


def _clean_accuracy(clean: CellResult) -> float:
    return float((1 - clean.table["wrong_draws"] / clean.table["draws"]).mean())


def _together(
    members: list[str],
    attacks: dict[str, dict[str, Any]],
    by_cell: dict[tuple[str, str], CellResult],
    results: list[CellResult],
    record: RunRecord,
) -> dict[str, Any]:
    """By epsilon, the per-example AND over the rows of a suite: uncredited, as rows are.

    Members that cannot run on this defense are left out; an epsilon at which another one did not
    finish has no figure.
    """
    import numpy as np

    runnable = [
        member
        for member in members
        if any(cell["status"] != "skipped" for cell in attacks[member].values())
    ]
    epsilons = dict.fromkeys(epsilon for member in runnable for epsilon in attacks[member])
    found = {}
    for epsilon in epsilons:
        rows = [by_cell.get((member, epsilon)) for member in runnable]
        broken = [
            row_broken(row, results, record.norm)
            for row in rows
            if row is not None and row.cell.scope == "all"
        ]
        if broken and len(broken) == len(runnable):
            robust = float((~np.any(broken, axis=0)).sum())
            found[epsilon] = {
                **proportion(robust, record.dataset.n),
                "attacks": runnable,
                "whole": len(runnable) == len(members),
            }
    return found


def _worst_case(
    record: RunRecord,
    results: list[CellResult],
    critical: np.ndarray | None,
    cells: list[CellRecord],
    epsilon: str,
) -> dict[str, Any]:
    n = record.dataset.n
    asked = [
        c
        for c in cells
        if c.attack != CLEAN
        and c.scope not in ("evidence", "check")
        and c.round == 0
        and c.status != "skipped"
    ]
    here = [c for c in asked if c.epsilon == epsilon]
    unchecked = [c for c in cells if (c.scope, c.epsilon) == ("check", epsilon)]
    attacked = {c.attack for c in asked}
    complete = (
        critical is not None
        and {c.attack for c in here} == attacked
        and all(c.status == "ok" for c in [*here, *unchecked])
    )
    if critical is None:
        nothing = {"robust_accuracy": None, "low": None, "high": None, "n": n}
        return {**nothing, "complete": False, "inferred": 0}
    inferred = [
        examples
        for (_, written), examples in inferred_survivors(results, record.norm).items()
        if written == epsilon
    ]
    correct = correct_within(results, record.norm, Epsilon.parse(epsilon))
    majority = int(n - broken_within(critical, Epsilon.parse(epsilon)).sum())
    beside = {"majority_accuracy": majority / n} if is_randomised(results) else {}
    return {
        **proportion(float(correct.sum()), n),
        **beside,
        "n": n,
        "complete": complete,
        # Robust examples whose survival at this epsilon rests on that of a larger one.
        "inferred": len(set().union(*inferred)),
    }


def proportion(robust: float, n: int) -> dict[str, Any]:
    """A robust accuracy with its 95 % Wilson interval."""
    low, high = wilson(robust, n)
    return {"robust_accuracy": robust / n, "low": low, "high": high}


def _attack(
    cell: CellRecord, result: CellResult | None, results: list[CellResult], record: RunRecord
) -> dict[str, Any]:
    n = record.dataset.n
    entry: dict[str, Any] = {
        "status": cell.status,
        "cause": cell.cause,
        "reason": cell.reason,
        "scope": cell.scope,
        "source": "inferred" if cell.inferred else "attacked",
        "escalated": cell.round > 0,
        "robust_accuracy": None,
        "low": None,
        "high": None,
        "n": n,
        "attacked": 0,
        "broken": 0,
        "flags": [],
        **_cost(Totals()),
    }
    if result is None:
        return entry
    own = [result]
    if cell.scope == "remaining":
        place = cell.attack, cell.epsilon
        own += [r for r in checks(results) if (r.cell.attack, r.cell.epsilon) == place]
    entry |= {
        "attacked": sum(int(r.table["attacked"].sum()) for r in own),
        "broken": sum(int(r.hit.sum()) for r in own),
        "flags": sorted({flag.sentence for r in own for flag in r.flags}),
        **_cost(sum((r.totals for r in own), start=Totals())),
    }
    if cell.scope == "all":
        table = result.table
        wrong = float((table["wrong_draws"] / table["draws"]).sum())
        if cell.inferred:  # of a deterministic defense only
            wrong = float(row_broken(result, results, record.norm).sum())
        entry |= proportion(n - wrong, n)
    return entry


def _cost(totals: Totals) -> dict[str, Any]:
    return {
        "forwards": totals.forwards,
        "backwards": totals.backwards,
        "seconds": round(totals.seconds, 3),
    }
