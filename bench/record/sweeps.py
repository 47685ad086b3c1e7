"""What follows of an example from other epsilons.

Of rows, broken examples, which is certain (DESIGN.md, law 2); of sweeps, survivors, which is an
inference that a run checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.record.results import CellResult, broken_within, critical_distances
from bench.record.schema import CLEAN

if TYPE_CHECKING:
    import numpy as np


def row_broken(result: CellResult, results: list[CellResult], norm: str) -> np.ndarray:
    """What a row counts as broken: bool, (n,).

    Its own outcomes, and what the attack broke within this epsilon in cells of other epsilons,
    where the sweep left that out here.

    Args:
        result: a cell of scope `all`.
        results: all cells of the defense.
        norm: of the run.
    """
    broken: np.ndarray = result.table["broken"].copy()
    if not result.cell.inferred:
        return broken
    same = (result.cell.label, result.cell.scope)
    own = [r for r in results if (r.cell.label, r.cell.scope) == same]
    broken |= broken_within(critical_distances(own, norm), result.epsilon)
    return broken


def inferred_survivors(results: list[CellResult], norm: str) -> dict[tuple[str, str], list[int]]:
    """Whose survival is inferred, by (attack, epsilon as written).

    An attack left these examples unbroken at a larger epsilon and did not attack them here, where
    nothing broke them either.
    """
    import numpy as np

    rows = [r for r in results if r.cell.attack != CLEAN and not r.cell.round and r.finished]
    swept = [r for r in rows if r.cell.scope in ("all", "remaining")]
    found: dict[tuple[str, str], list[int]] = {}
    if len(swept) < 2:
        return found
    critical = critical_distances(results, norm)
    for result in swept:
        place = result.cell.attack, result.cell.epsilon
        above = [
            r.survived
            for r in swept
            if r.cell.attack == result.cell.attack and float(r.epsilon) > float(result.epsilon)
        ]
        attacked = [
            r.table["attacked"]
            for r in [result, *checks(results)]
            if (r.cell.attack, r.cell.epsilon) == place
        ]
        pending = np.any([np.zeros(len(critical), dtype=bool), *above], axis=0)
        pending &= ~np.any(attacked, axis=0) & ~broken_within(critical, result.epsilon)
        if pending.any():
            found[place] = np.flatnonzero(pending).tolist()
    return found


def checks(results: list[CellResult]) -> list[CellResult]:
    """The cells that attack after all what a sweep inferred."""
    return [r for r in results if r.cell.scope == "check" and r.finished]


def sweep_report(results: list[CellResult], norm: str) -> dict[str, Any] | None:
    """For `summary.json`: how many survivals rest on inference, and what attacking others found.

    None where nothing was ever inferred.
    """
    inferred = sum(map(len, inferred_survivors(results, norm).values()))
    attacked = sum(int(r.table["attacked"].sum()) for r in checks(results))
    if not inferred and not attacked:
        return None
    broken = sum(int(r.hit.sum()) for r in checks(results))
    return {"inferred": inferred, "checked": attacked, "differed": broken}
