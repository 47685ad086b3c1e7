"""Outcomes against themselves, the examples, and what their cells say; the model is not asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.matrix.judge import DRAWS, NOT_FINITE, OUTSIDE
from bench.matrix.schedule import by_scores
from bench.record.outcomes import COLUMNS
from bench.record.results import broken_within, critical_distances
from bench.record.schema import CLEAN, EXTERNAL
from bench.run.verification.claims import attack_of, setting_of_record
from bench.run.verification.findings import listed
from bench.threat import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.api import Examples
    from bench.record.results import CellResult
    from bench.record.schema import RunRecord
    from bench.run.verification.findings import Findings

#: Distances of one perturbation in three norms agree up to the rounding of float64 sums.
ROUNDING = 1e-9
DISTANCES = ("distance_linf", "distance_l2", "distance_l1")


def columns_of(result: CellResult) -> dict[str, np.ndarray]:
    """The columns of a cell's outcomes, (n,) each."""
    return {name: result.frame[name].to_numpy() for name in COLUMNS}


def check_values(results: Sequence[CellResult], examples: Examples, findings: Findings) -> bool:
    """Whether every value is one that its column can have; a fault for each that is not.

    Nothing is computed from outcomes that fail this.
    """
    import numpy as np

    labels, before = examples.labels.cpu().numpy(), len(findings.faults)
    for result in results:
        own = columns_of(result)
        draws, classes = own["draws"], examples.classes
        allowed = {
            "label": own["label"] == labels,
            "clean_prediction": _between(own["clean_prediction"], 0, classes - 1),
            "prediction": _between(own["prediction"], -1, classes - 1),
            "draws": np.isin(draws, (1, DRAWS)),
            "wrong_draws": _between(own["wrong_draws"], 0, draws),
            "choice_wrong_draws": _between(own["choice_wrong_draws"], 0, draws),
            "fault": np.isin(own["fault"].astype(str), ("", NOT_FINITE, OUTSIDE)),
        }
        for name, fine in allowed.items():
            _say(result, f"{name} is none that it can be", ~fine, findings)
    return len(findings.faults) == before


def _between(values: np.ndarray, low: int, high: int | np.ndarray) -> np.ndarray:
    inside: np.ndarray = (values >= low) & (values <= high)
    return inside


def _say(result: CellResult, what: str, wrong: np.ndarray, findings: Findings) -> None:
    """A fault where something is wrong with examples of a cell."""
    import numpy as np

    if wrong.any():
        findings.fault(
            f"{named(result)}: {what} (example {listed(np.flatnonzero(wrong).tolist())})"
        )


def named(result: CellResult) -> str:
    """A cell, as faults call it."""
    return f"{result.cell.defense} × {result.cell.label} @ {result.cell.epsilon}"


def check_outcomes(results: Sequence[CellResult], record: RunRecord, findings: Findings) -> None:
    """Every rule that the outcomes of one defense keep, whatever the model and its attacks."""
    clean = next((r for r in results if r.cell.attack == CLEAN), None)
    if clean is None:
        return
    first = columns_of(clean)
    _check_clean(clean, first, findings)
    setting = setting_of_record(record)
    failed = {cell.key for cell in record.cells if cell.status == "failed"}
    for result in results:
        own = columns_of(result)
        if result.cell.attack != CLEAN:
            _check_left(result, own, first, findings)
            _check_attacked(result, own, record, findings)
            if result.finished:
                _check_scope(result, ~first["broken"], results, record, findings)
        whole = setting.made_of(result.blocks, own["index"][own["attacked"]].tolist())
        if result.finished and not whole:
            findings.fault(
                f"{named(result)}: its shards are not those of shard size {record.shard_size}"
            )
        if result.cell.key in failed and whole:
            findings.fault(f"{named(result)} is called failed, and all its shards are stored")


def _check_clean(clean: CellResult, own: dict[str, np.ndarray], findings: Findings) -> None:
    broken, once = own["broken"], own["draws"] == 1
    majority = 2 * own["wrong_draws"] > own["draws"]
    right = own["clean_prediction"] == own["label"]
    differ = own["prediction"] != own["clean_prediction"]
    _say(clean, "an unperturbed example cannot be attacked", own["attacked"], findings)
    _say(clean, "prediction is not clean_prediction", differ, findings)
    _say(clean, "broken, and predicted right", once & broken & right, findings)
    _say(clean, "broken is not what its draws say", broken != majority, findings)
    _say(clean, "its draws before are others", once & _unequal_draws(own), findings)
    _check_margins(clean, own, own["index"] >= 0, findings)
    _check_distances_at_rest(clean, own, broken, findings)


def _unequal_draws(own: dict[str, np.ndarray]) -> np.ndarray:
    """Where a single answer was counted as two."""
    unequal: np.ndarray = own["choice_wrong_draws"] != own["wrong_draws"]
    return unequal


def _check_margins(
    result: CellResult, own: dict[str, np.ndarray], judged: np.ndarray, findings: Findings
) -> None:
    """Of one answer, the margin is negative where the prediction is not the label."""
    import numpy as np

    margin, wrong = own["margin"], own["prediction"] != own["label"]
    contrary = ((margin < 0) & ~wrong) | ((margin > 0) & wrong)
    _say(result, "no margin", judged & ~np.isfinite(margin), findings)
    once = judged & (own["draws"] == 1)
    _say(result, "margin and prediction contradict each other", once & contrary, findings)


def _check_distances_at_rest(
    result: CellResult, own: dict[str, np.ndarray], rows: np.ndarray, findings: Findings
) -> None:
    """Not attacked: at 0 where it is a clean error, else nowhere."""
    import numpy as np

    still = ~own["attacked"]
    for name in DISTANCES:
        elsewhere = np.where(rows, own[name] != 0, ~np.isnan(own[name]))
        _say(result, f"{name} of an example that was not attacked", still & elsewhere, findings)


def _check_left(
    result: CellResult,
    own: dict[str, np.ndarray],
    first: dict[str, np.ndarray],
    findings: Findings,
) -> None:
    """The rows of examples that a cell did not attack say what the clean predictions say."""
    import numpy as np

    still, wrong = ~own["attacked"], first["broken"]
    counted = np.where(wrong, first["wrong_draws"], 0)
    expected = {
        "another clean prediction": own["clean_prediction"] != first["clean_prediction"],
        "a clean error was attacked": own["attacked"] & wrong,
        "other draws": own["draws"] != first["draws"].max(),
        "broken without an attack": still & (own["broken"] != wrong),
        "wrong draws without an attack": still
        & ((own["wrong_draws"] != counted) | (own["choice_wrong_draws"] != counted)),
        "projected without an attack": still & own["projected"],
        "refused without an attack": still & (own["fault"] != ""),
    }
    for what, where in expected.items():
        _say(result, what, where, findings)
    _check_distances_at_rest(result, own, wrong, findings)


def _check_attacked(
    result: CellResult, own: dict[str, np.ndarray], record: RunRecord, findings: Findings
) -> None:
    """The rows of examples that a cell attacked contradict neither themselves nor the epsilon."""
    import numpy as np

    hit, broken, refused = own["attacked"], own["broken"], own["fault"] != ""
    majority = 2 * own["wrong_draws"] > own["draws"]
    once, right = hit & (own["draws"] == 1), own["prediction"] == own["label"]
    placed = broken | (own["choice_wrong_draws"] > 0)
    linf, l2, l1 = (own[name] for name in DISTANCES)
    ordered = (linf >= 0) & (linf <= l2 + ROUNDING) & (l2 <= l1 * (1 + ROUNDING) + ROUNDING)
    ordered &= np.isfinite(l1)
    anywhere = ~(np.isnan(linf) & np.isnan(l2) & np.isnan(l1))
    far = own[f"distance_{record.norm.lower()}"] > float(result.epsilon) + TOLERANCE
    expected = {
        "broken by a candidate that was refused": hit & broken & refused,
        "broken is not what its draws say": hit & ~refused & (broken != majority),
        "its draws before are others": once & _unequal_draws(own),
        "broken, and predicted right": once & broken & right,
        "distances that no perturbation has": hit & placed & ~ordered,
        "a distance, and nothing was found": hit & ~placed & anywhere,
        # What lies outside even when projected was refused, and has its distance all the same.
        "found beyond the cell's epsilon": hit & ~refused & far,
    }
    _check_margins(result, own, hit, findings)
    for what, where in expected.items():
        _say(result, what, where, findings)


def _check_scope(
    result: CellResult,
    right: np.ndarray,
    results: Sequence[CellResult],
    record: RunRecord,
    findings: Findings,
) -> None:
    """A cell attacked what its scope says, and what it left out follows from elsewhere."""
    import numpy as np

    cell, hit = result.cell, result.frame["attacked"].to_numpy()
    left = right & ~hit
    attack = attack_of(record, cell.attack)
    foreign = cell.attack.startswith(EXTERNAL) and cell.scope != "all"
    if cell.scope == "check" or foreign:
        return  # any examples: what was drawn, what a file holds
    if cell.scope == "evidence":
        if attack is None:
            return
        whole = np.flatnonzero(right)[: attack.sample or None]
        _say(result, "left out of a measurement", _marked(whole, len(hit)) & ~hit, findings)
        return
    if not left.any():
        if cell.inferred:
            _say(result, "called inferred, and everything was attacked", right, findings)
        return
    if cell.scope == "all" and not cell.inferred:
        _say(result, "left out of a row", left, findings)
        return
    mine = [r for r in results if (r.cell.label, r.cell.scope) == (cell.label, cell.scope)]
    known = mine if cell.scope == "all" else results
    broken = broken_within(critical_distances(list(known), record.norm), result.epsilon)
    survived = np.zeros(len(hit), dtype=bool)
    searches = cell.scope == "remaining" or attack is None or by_scores(attack)
    for other in mine if searches and cell.inferred else ():
        if other.whole and float(other.epsilon) > float(result.epsilon):
            survived |= other.survived
    _say(result, "left out, and nothing says why", left & ~broken & ~survived, findings)


def _marked(indices: np.ndarray, n: int) -> np.ndarray:
    import numpy as np

    marked: np.ndarray = np.zeros(n, dtype=bool)
    marked[indices] = True
    return marked
