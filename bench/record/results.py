"""Finished cells, read back: what their outcomes say of each example."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.api import Flag
from bench.errors import StoreError, UsageError
from bench.record.outcomes import Totals
from bench.record.schema import CLEAN
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy as np
    import pandas as pd

    from bench.record.outcomes import Computed, Outcomes
    from bench.record.schema import CellRecord, Place, RunRecord
    from bench.record.store import RunStore

    #: Columns of outcomes by name, each (n,).
    Table = Mapping[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class CellResult:
    """One cell, read back."""

    cell: CellRecord
    frame: pd.DataFrame
    totals: Totals
    flags: tuple[Flag, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()
    """The first example of each stored shard, and the one after its last."""
    computed: tuple[Computed | None, ...] = ()
    """How each of them was; None of an attack that takes no rows."""
    finished: bool = True
    """Whether it is a cell of the run whose shards are all there; else what it broke counts in the
    worst case alone."""

    @property
    def whole(self) -> bool:
        """Whether all its shards are there, also where another cell took its place since.

        What it left unbroken counts for its attack's other epsilons; of a part nothing does.
        """
        stored = sum(stop - start for start, stop in self.blocks)
        return self.cell.status == "ok" and stored == len(self.frame)

    @functools.cached_property
    def epsilon(self) -> Epsilon:
        """The radius; not of the clean predictions."""
        return Epsilon.parse(self.cell.epsilon)

    @functools.cached_property
    def table(self) -> Table:
        """The numbers of `frame`: pandas takes longer to find a column than to add it up."""
        columns = self.frame.items()
        return {str(n): c.to_numpy() for n, c in columns if c.dtype.kind in "biuf"}

    def beside(self, others: Iterable[CellResult]) -> dict[str, tuple[int, ...]] | None:
        """What its computation was asked to attack, by exact epsilon, this cell included.

        Args:
            others: all cells of the defense.

        Returns:
            None where it was not computed in one piece over several epsilons.
        """
        if len(self._epsilons) < 2:
            return None
        alike = [
            other
            for other in others
            if (other.cell.label, other.cell.scope) == (self.cell.label, self.cell.scope)
            and other._epsilons == self._epsilons
        ]
        return {str(other.epsilon.exact): other._asked for other in alike}

    @property
    def _epsilons(self) -> tuple[str, ...]:
        """That all of its shards were computed with; none where they differ."""
        found = {each.epsilons if each else () for each in self.computed}
        return found.pop() if len(found) == 1 else ()

    @property
    def _asked(self) -> tuple[int, ...]:
        return tuple(example for each in self.computed if each for example in each.asked)

    @property
    def hit(self) -> np.ndarray:
        """What was attacked and broken, clean errors not among it: bool, (n,)."""
        return self.table["attacked"] & self.table["broken"]

    @property
    def survived(self) -> np.ndarray:
        """What was attacked and not broken: bool, (n,)."""
        return self.table["attacked"] & ~self.table["broken"]

    @classmethod
    def read(cls, store: RunStore, cell: CellRecord, n: int) -> CellResult:
        """Join the shards of a finished cell.

        Raises:
            StoreError: shards are missing or damaged.
        """
        import numpy as np

        shards = list(store.shards(cell.key, n))
        if sum(len(shard.frame) for shard in shards) != n:
            raise _incomplete(cell, n)
        joined = cls._joined(cell, shards)
        if not np.array_equal(joined.frame["index"], np.arange(n)):
            raise _incomplete(cell, n)
        return joined

    @classmethod
    def read_part(cls, store: RunStore, cell: CellRecord, clean: CellResult) -> CellResult | None:
        """What is stored of a cell that is unfinished, or whose place another took.

        Args:
            store: of the run.
            cell: with its key.
            clean: the predictions on unperturbed examples, which stand where nothing is stored.

        Returns:
            Not `finished`; None where nothing is stored.

        Raises:
            StoreError: shards are damaged.
        """
        import pandas as pd

        n = len(clean.frame)
        shards = list(store.shards(cell.key, n))
        if not shards:
            return None
        found = cls._joined(cell, shards)
        frame = found.frame
        if frame["index"].duplicated().any() or not frame["index"].between(0, n - 1).all():
            raise _incomplete(cell, n)
        rest = clean.frame[~clean.frame["index"].isin(frame["index"])].copy()
        rest["prediction"] = rest["prediction"].where(rest["broken"], -1)
        rest["wrong_draws"] = rest["wrong_draws"].where(rest["broken"], 0)
        rest["choice_wrong_draws"] = rest["wrong_draws"]
        rest["margin"] = float("nan")
        together = pd.concat([frame, rest]).sort_values("index", ignore_index=True)
        return replace(found, frame=together, finished=False)

    @classmethod
    def _joined(cls, cell: CellRecord, shards: Sequence[Outcomes]) -> CellResult:
        import pandas as pd

        for shard in shards:
            if shard.place and not _same_place(shard.place, cell.place):
                raise StoreError(
                    f"cell {cell.key} ({cell.defense} × {cell.label} @ {cell.epsilon}) holds a "
                    f"shard of another cell: {' '.join(map(str, shard.place))}"
                )
        frame = pd.concat([shard.frame for shard in shards], ignore_index=True)
        totals = sum((shard.totals for shard in shards), start=Totals())
        flags = sorted({flag for shard in shards for flag in shard.flags}, key=lambda f: f.sentence)
        every = (*flags, *_fault_flags(frame))
        blocks = tuple(shard.block for shard in shards)
        return cls(cell, frame, totals, every, blocks, tuple(s.computed for s in shards))


def _same_place(a: Place, b: Place) -> bool:
    """Whether two places are one, however their epsilons are written."""
    if a._replace(epsilon="") != b._replace(epsilon="") or "0" in (a.epsilon, b.epsilon):
        return a == b
    try:
        return Epsilon.parse(a.epsilon) == Epsilon.parse(b.epsilon)
    except UsageError:
        return False


def _incomplete(cell: CellRecord, n: int) -> StoreError:
    return StoreError(
        f"cell {cell.key} ({cell.defense} × {cell.attack} @ {cell.epsilon}) does not hold "
        f"the outcomes of all {n} examples"
    )


def _fault_flags(frame: pd.DataFrame) -> list[Flag]:
    counts = Counter(frame["fault"].tolist())
    return [Flag("", f"{counts[f]} candidate(s) {f}") for f in sorted(counts) if f]


def read_cells(
    store: RunStore, record: RunRecord, known: Iterable[CellResult] = ()
) -> dict[str, list[CellResult]]:
    """What is stored of a run by defense: its finished cells, in the order of the record.

    After them those that are unfinished, or whose place others took: what they broke is broken.

    Args:
        store: of the run.
        record: the run's.
        known: cells that were read before, and are not read again.

    Raises:
        StoreError: shards are missing or damaged.
    """
    results: dict[str, list[CellResult]] = {name: [] for name in record.defenses}
    clean = {}
    before = {result.cell.key: result for result in known if result.finished}
    for cell in record.cells:
        if cell.status == "ok":
            found = before.get(cell.key)
            if found is None or found.cell != cell:
                found = CellResult.read(store, cell, record.dataset.n)
            results[cell.defense].append(found)
            if cell.attack == CLEAN:
                clean[cell.defense] = found
    unfinished = [cell for cell in record.cells if cell.status != "ok" and cell.key]
    for cell in [*unfinished, *record.replaced]:
        if cell.defense in clean and cell.attack != CLEAN:
            part = CellResult.read_part(store, cell, clean[cell.defense])
            if part is not None:
                results[cell.defense].append(part)
    return results


def critical_distances(results: list[CellResult], norm: str) -> np.ndarray:
    """The smallest norm at which each example is known to be broken.

    Returns:
        float64, (n,): 0 for a clean error, infinity where nothing was found.
    """
    import numpy as np

    column = f"distance_{norm.lower()}"
    distances = [np.where(r.table["broken"], r.table[column], np.inf) for r in results]
    smallest: np.ndarray = np.min(distances, axis=0)
    return smallest


def is_randomised(results: Iterable[CellResult]) -> bool:
    """Whether the judge had to ask more than once."""
    return any(int(result.table["draws"].max()) > 1 for result in results)


def correct_within(results: Sequence[CellResult], norm: str, epsilon: Epsilon) -> np.ndarray:
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
        table = result.table
        clean = result.cell.attack == CLEAN
        distance = np.zeros(len(worst)) if clean else table[column]
        within = broken_within(distance, epsilon)
        chance = np.where(within, table["choice_wrong_draws"] / table["draws"], -1.0)
        better = chance > worst
        correct = np.where(better, 1 - table["wrong_draws"] / table["draws"], correct)
        worst = np.where(better, chance, worst)
    return correct


def broken_within(critical: np.ndarray, epsilon: Epsilon) -> np.ndarray:
    """Which examples are broken at this epsilon, by their critical distance."""
    return critical <= float(epsilon) + TOLERANCE


def outcomes_frame(results: dict[str, list[CellResult]]) -> pd.DataFrame:
    """All outcomes of a run: one row per defense, attack, epsilon and example."""
    import numpy as np
    import pandas as pd

    every = (result for group in results.values() for result in group)
    found = [each for each in every if each.cell.attack != CLEAN and each.finished]
    if not found:
        return pd.DataFrame()
    joined = pd.concat([each.frame for each in found], ignore_index=True)
    rows = [len(each.frame) for each in found]
    for place, name in enumerate(("defense", "attack", "epsilon", "repeat")):
        joined.insert(place, name, np.repeat([getattr(each.cell, name) for each in found], rows))
    return joined
