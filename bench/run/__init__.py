"""One run: names to cells, cells to outcomes, outcomes to summary and leaderboard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UsageError
from bench.matrix.fill import Filler, Silent
from bench.record.files import locked
from bench.record.results import outcomes_frame, read_cells
from bench.record.store import RunStore, open_run
from bench.record.summary import build, examinations
from bench.report import render_leaderboard, write_leaderboard
from bench.run.inquiry import Inquiry
from bench.run.recording import examined, record_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

    from bench.matrix.fill import Observer
    from bench.record.schema import CellRecord, RunRecord
    from bench.run.prepare import Prepared
    from bench.run.recording import RunStatus


@dataclass(frozen=True)
class Result:
    """What a run found."""

    summary: dict[str, Any]
    """The dictionary of `summary.json`."""
    outcomes: pd.DataFrame
    """One row per defense, attack, epsilon and example."""
    folder: Path | None = None
    """Where it is stored."""

    def to_markdown(self) -> str:
        """The leaderboard and the matrix of every defense."""
        return render_leaderboard([self.summary])

    @property
    def failed(self) -> bool:
        """Whether some cell failed."""
        return any(entry["failed"] for entry in self.summary["defenses"].values())


def run(prepared: Prepared, observer: Observer | None = None) -> Result:
    """Do what is missing of a run, and write its summary.

    Interrupted, it loses the shards in flight; run again, it goes on where it was.

    Raises:
        ModelError: a defense does not answer the clean inputs with finite logits (N, classes).
        StoreError: the folder is in use or cannot be written.
    """
    with locked(prepared.folder):
        store = RunStore(prepared.folder)
        store.clean_up()
        if prepared.config.fresh:
            store.clear()
        result = _run(prepared, store, observer or Silent())
    write_leaderboard(prepared.config.out)
    return result


def _run(prepared: Prepared, store: RunStore, observer: Observer) -> Result:
    previous = store.read_record()
    prepared = prepared.continuing(previous)
    cells = prepared.cells
    store.clear_errors()
    if not prepared.dataset.written:
        store.write_examples(prepared.examples)
    planned = [each.record("incomplete") for each in cells]
    store.write_record(record_of(prepared, previous, planned, "running"))
    executor = prepared.executor()
    try:
        filler = Filler(
            prepared.setting,
            prepared.headline,
            store,
            executor,
            observer,
            limit=prepared.config.budget,
        )
        filled = filler.fill(cells, prepared.sweep)
        if prepared.examined:
            filled = Inquiry(prepared, filler).conduct(filled)
    except UsageError:
        store.put_back_record(previous)  # a mistake of the user's leaves no trace
        raise
    except BaseException as error:
        status: RunStatus = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        store.write_record(record_of(prepared, previous, planned, status))
        raise
    finally:
        executor.close()
    unfinished = any(cell.status == "incomplete" for cell in filled)
    record = record_of(prepared, previous, filled, "interrupted" if unfinished else "complete")
    record = _with_examined(record, prepared, filled)
    store.write_record(record)
    return summarise(store, record)


def _with_examined(
    record: RunRecord, prepared: Prepared, filled: Iterable[CellRecord]
) -> RunRecord:
    """The record after the examination of this command; one that did not finish is none."""
    unfinished = {cell.defense for cell in filled if cell.status == "incomplete"}
    names = [c.name for c in prepared.contenders if c.name not in unfinished]
    return record.with_examined(names, [epsilon.text for epsilon in prepared.examined])


def summarise(store: RunStore, record: RunRecord) -> Result:
    """Write everything that follows from the outcomes: summary, leaderboard, manifest."""
    results = read_cells(store, record)
    summary = build(record, results, examined(record, results))
    store.write_json("summary.json", summary)
    evidence = {
        name if epsilon == summary["headline"] else f"{name} @ {epsilon}": found["evidence"]
        for group in ("defenses", "controls")
        for name, part in summary[group].items()
        for epsilon, found in examinations(summary, part).items()
    }
    store.write_json("evidence.json", evidence)
    store.write_text("leaderboard.md", render_leaderboard([summary]))
    store.write_manifest()
    return Result(summary, outcomes_frame(results), store.folder)


def load_results(folder: Path | str) -> Result:
    """A stored run.

    Raises:
        StoreError: there is none in this folder, or it is damaged.
    """
    store, record = open_run(Path(folder))
    results = read_cells(store, record)
    summary = build(record, results, examined(record, results))
    return Result(summary, outcomes_frame(results), store.folder)
