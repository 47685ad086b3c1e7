"""Finished cells, read back: what their outcomes say of each example."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import StoreError
from bench.record.outcomes import Totals
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from bench.record.schema import CellRecord, RunRecord
    from bench.record.store import RunStore

CLEAN = "clean"


@dataclass
class CellResult:
    """One cell, read back."""

    cell: CellRecord
    frame: pd.DataFrame
    totals: Totals
    flags: list[str]

    @property
    def epsilon(self) -> Epsilon:
        """The radius; not of the clean predictions."""
        return Epsilon.parse(self.cell.epsilon)

    @property
    def survived(self) -> np.ndarray:
        """What was attacked and not broken: bool, (n,)."""
        left: np.ndarray = (self.frame["attacked"] & ~self.frame["broken"]).to_numpy()
        return left

    @classmethod
    def read(cls, store: RunStore, cell: CellRecord, n: int) -> CellResult:
        """Join the shards of a finished cell.

        Raises:
            StoreError: shards are missing or damaged.
        """
        import pandas as pd

        shards = list(store.shards(cell.key))
        frame = (
            pd.concat([shard.frame for shard in shards], ignore_index=True)
            if shards
            else pd.DataFrame({"index": []})
        )
        if frame["index"].tolist() != list(range(n)):
            raise StoreError(
                f"cell {cell.key} ({cell.defense} × {cell.attack} @ {cell.epsilon}) does not hold "
                f"the outcomes of all {n} examples"
            )
        totals = sum((shard.totals for shard in shards), start=Totals())
        flags = sorted({flag for shard in shards for flag in shard.flags})
        return cls(cell, frame, totals, flags + _fault_flags(frame))


def _fault_flags(frame: pd.DataFrame) -> list[str]:
    counts = frame["fault"].value_counts()
    return [f"{counts[fault]} candidate(s) {fault}" for fault in sorted(counts.index) if fault]


def read_cells(store: RunStore, record: RunRecord) -> dict[str, list[CellResult]]:
    """The finished cells of a run by defense, in the order of the record."""
    results: dict[str, list[CellResult]] = {name: [] for name in record.defenses}
    for cell in record.cells:
        if cell.status == "ok":
            results[cell.defense].append(CellResult.read(store, cell, record.dataset.n))
    return results


def critical_distances(results: list[CellResult], norm: str) -> np.ndarray:
    """The smallest norm at which each example is known to be broken.

    Returns:
        float64, (n,): 0 for a clean error, infinity where nothing was found.
    """
    import numpy as np

    column = f"distance_{norm.lower()}"
    distances = [np.where(r.frame["broken"], r.frame[column], np.inf) for r in results]
    smallest: np.ndarray = np.min(distances, axis=0)
    return smallest


def is_randomised(results: list[CellResult]) -> bool:
    """Whether the judge had to ask more than once."""
    return any(int(result.frame["draws"].max()) > 1 for result in results)


def correct_within(results: list[CellResult], norm: str, epsilon: Epsilon) -> np.ndarray:
    """The fraction of draws in which each example is right at its worst within epsilon.

    The worst of all candidates within epsilon is chosen by one set of draws and reported by
    another, so that choosing among many does not lower the figure by chance. Of a deterministic
    defense this is 0 or 1, the per-example AND.

    Returns:
        float64, (n,).
    """
    import numpy as np

    column = f"distance_{norm.lower()}"
    worst, correct = np.full(len(results[0].frame), -1.0), np.ones(len(results[0].frame))
    for result in results:
        frame = result.frame
        clean = result.cell.attack == CLEAN
        distance = np.zeros(len(frame)) if clean else frame[column].to_numpy()
        within = broken_within(distance, epsilon)
        chance = np.where(within, frame["choice_wrong_draws"] / frame["draws"], -1.0)
        better = chance > worst
        correct = np.where(better, 1 - frame["wrong_draws"] / frame["draws"], correct)
        worst = np.where(better, chance, worst)
    return correct


def broken_within(critical: np.ndarray, epsilon: Epsilon) -> np.ndarray:
    """Which examples are broken at this epsilon, by their critical distance."""
    return critical <= float(epsilon) + TOLERANCE


def outcomes_frame(results: dict[str, list[CellResult]]) -> pd.DataFrame:
    """All outcomes of a run: one row per defense, attack, epsilon and example."""
    import pandas as pd

    frames = [
        result.frame.assign(defense=name, attack=result.cell.attack, epsilon=result.cell.epsilon)
        for name, group in results.items()
        for result in group
        if result.cell.attack != CLEAN
    ]
    if not frames:
        return pd.DataFrame()
    joined = pd.concat(frames, ignore_index=True)
    front = ["defense", "attack", "epsilon"]
    return joined[front + [column for column in joined if column not in front]]
