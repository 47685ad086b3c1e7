"""The HTML page of stored runs, from their files: nothing is computed, and torch is not needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.data import open_dataset
from bench.errors import StoreError, UsageError
from bench.record.files import write_bytes
from bench.record.results import read_cells
from bench.record.schema import CLEAN
from bench.record.store import open_run
from bench.report.page import PageRun, render_page
from bench.run.verification.sources import plain_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np

    from bench.record.schema import RunRecord
    from bench.record.store import RunStore
    from bench.report.page.gallery import Gallery
    from bench.report.writing import Summary

#: Bytes that all pictures of a page may take.
PICTURES = 1_800_000


def write_page(summaries: Mapping[Path, Summary], path: Path) -> Path:
    """Write the page of some finished runs, stored or published; give its path.

    Args:
        summaries: by the folder of each run.
        path: of the page; outside of these folders, for their manifests name every file.

    Raises:
        StoreError: the page cannot be written.
    """
    defenses = sum(len(summary["defenses"]) for summary in summaries.values())
    runs = []
    for folder, summary in summaries.items():
        galleries, why = _galleries(folder, PICTURES // max(defenses, 1))
        runs.append(PageRun(summary, galleries, why))
    write_bytes(path, render_page(runs).encode())
    return path


def _galleries(folder: Path, room: int) -> tuple[dict[str, Gallery], str]:
    """The pictures of a run by defense, and why one has none."""
    from bench.report.page.gallery import hang

    if not (folder / "run.json").is_file():
        return {}, "What is published holds figures, and no images."
    try:
        store, record = open_run(folder)
        reader, results = _Reader(store, record), read_cells(store, record)
        shown = {name: d.key for name, d in record.defenses.items() if not d.control}
        return {
            name: hang(record, results[name], store.smallest(key).all(), reader, room)
            for name, key in shown.items()
            if any(result.cell.attack == CLEAN for result in results[name])
        }, ""
    except (StoreError, UsageError) as error:
        return {}, f"They cannot be read: {error}"


class _Reader:
    """Reads unperturbed examples of a run, wherever they are."""

    def __init__(self, store: RunStore, record: RunRecord) -> None:
        self.store, self.record = store, record

    def __call__(self, places: Sequence[int]) -> np.ndarray | None:
        dataset = self.record.dataset
        try:
            if not dataset.written:
                return self.store.read_inputs()[list(places)]
            found = open_dataset(plain_source(dataset.written))
            return found.pictures("test", dataset.n, places)
        except UsageError:  # the data are elsewhere by now, or on another machine
            return None
