"""One run: names to cells, cells to outcomes, outcomes to summary and leaderboard."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import HandsError, StoreError, UsageError
from bench.matrix.fill import Filler, Silent
from bench.record.files import locked
from bench.record.outcomes import Totals
from bench.record.results import outcomes_frame, read_cells
from bench.record.store import RunStore, open_run
from bench.record.summary import build
from bench.report import render_leaderboard, write_leaderboard
from bench.run.again import finished
from bench.run.identity import identify, keep, settled
from bench.run.inquiry import Inquiry
from bench.run.recording import (
    evidence_file,
    examined,
    latest,
    record_of,
    with_strays,
    without_left,
)
from bench.run.result import Result as Result  # what a run is answered with

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.matrix.fill import Observer
    from bench.record.results import CellResult
    from bench.record.schema import CellRecord, RunRecord
    from bench.run.prepare import Prepared
    from bench.run.recording import RunStatus


def run(prepared: Prepared, observer: Observer | None = None, question: str = "") -> Result:
    """Do what is missing of a run, and write its summary.

    Interrupted, it loses the shards in flight; run again, it goes on where it was.

    Args:
        prepared: the run.
        observer: is told how it goes.
        question: of the command, for `bench.run.again`; empty where nobody will ask it again.

    Raises:
        ModelError: the one defense asked for does not answer the clean inputs with finite logits
            (N, classes); of several the cells of one that does not fail.
        StoreError: the folder is in use or cannot be written.
        HandsError: a cluster has no worker left.
    """
    with _at_work(prepared, observer or Silent()) as (prepared, previous, filler):
        result = _run(prepared, previous, filler, question)
    write_leaderboard(prepared.config.out)
    return result


def totals_of(prepared: Prepared, observer: Observer) -> Totals:
    """What a run takes: it is done, and nobody is told what was found.

    Args:
        prepared: the run, in a folder where there is none.
        observer: is told how it goes.

    Raises:
        ModelError, StoreError, HandsError: as of `run`.
    """
    with _at_work(prepared, observer) as (prepared, _, filler):
        _fill(prepared, filler)
    return sum((result.totals for result in filler.known), start=Totals())


@contextlib.contextmanager
def _at_work(
    prepared: Prepared, observer: Observer
) -> Iterator[tuple[Prepared, RunRecord | None, Filler]]:
    """A run as its models answer, what is stored of it, and who fills its cells.

    Its folder is locked meanwhile.
    """
    from bench.models.ambient import plain_torch

    executor = prepared.executor()
    here = "cpu" if prepared.workers else prepared.device
    with plain_torch(here), contextlib.closing(executor):
        answers = identify(prepared, executor)
        prepared = settled(prepared, answers).done_by(executor)
        with locked(prepared.folder):
            store = RunStore(prepared.folder)
            store.clean_up()
            if prepared.config.fresh:
                store.clear()
            store.check_plain()
            keep(store, answers)
            previous = with_strays(store, store.read_record())
            prepared = prepared.continuing(previous)
            limit = prepared.config.budget
            setting, headline = prepared.setting, prepared.headline
            yield prepared, previous, Filler(setting, headline, store, executor, observer, limit)


def _fill(prepared: Prepared, filler: Filler) -> list[CellRecord]:
    """Attack, and examine."""
    filled = filler.fill(prepared.cells, prepared.sweep)
    return Inquiry(prepared, filler).conduct(filled) if prepared.examined else filled


def _run(prepared: Prepared, previous: RunRecord | None, filler: Filler, question: str) -> Result:
    store = filler.store
    planned = [each.record("incomplete") for each in prepared.cells]
    places = {cell.place for cell in planned}
    foreign = [c for c in previous.cells if c.place not in places] if previous else []
    store.clear_errors(but={cell.key for cell in foreign if cell.status == "failed"})
    if not prepared.dataset.written:
        store.write_examples(prepared.examples)
    store.write_record(record_of(prepared, previous, planned, "running"))
    try:
        filled = _fill(prepared, filler)
    except BaseException as error:
        kept = isinstance(error, (StoreError, HandsError))
        mistake = isinstance(error, UsageError) and not kept
        ended = isinstance(error, (KeyboardInterrupt, HandsError))
        status: RunStatus = "interrupted" if ended else "failed"
        with contextlib.suppress(StoreError):  # a full disk: the record stays, and the error counts
            if mistake:
                store.put_back_record(previous)  # a mistake of the user's leaves no trace
            else:
                done = [result.cell for result in filler.known if result.cell.place in places]
                cells = list(latest([*planned, *done]).values())
                store.write_record(record_of(prepared, previous, cells, status))
                stopped = with_strays(store, store.read_record())
                if stopped and (ended or previous):  # what is there has its figures, as before
                    store.write_record(stopped)
                    summarise(store, stopped, filler.known)
        raise
    own = latest(filled)
    filled_last = own.values()
    record = record_of(prepared, previous, filled, "complete")
    record = without_left(record, prepared, filled, store.stored_keys())
    if any(cell.status == "incomplete" for cell in record.cells if cell.place in own):
        record = record.model_copy(update={"status": "interrupted"})
    stored = _with_examined(record, prepared, filled_last)
    stored = finished(stored, question)
    store.write_record(stored)
    result = summarise(store, stored, filler.known)
    asked = _of_command(record, prepared, filled_last)
    if len(asked.cells) == len(record.cells):
        return result
    return result_of(store, _with_examined(asked, prepared, filled_last), filler.known)


def _of_command(record: RunRecord, prepared: Prepared, filled: Iterable[CellRecord]) -> RunRecord:
    """The record without what other commands left unfinished or failed: theirs to finish and tell.

    Files of adversarial examples are about the whole run, and report it.
    """
    own = {cell.place for cell in filled}
    done = [c for c in record.cells if c.place in own or c.status in ("ok", "skipped")]
    return record if prepared.candidates else record.model_copy(update={"cells": done})


def _with_examined(
    record: RunRecord, prepared: Prepared, filled: Iterable[CellRecord]
) -> RunRecord:
    """The record after the examination of this command; one that did not finish is none.

    A control is attacked to be compared with, and not examined.
    """
    unfinished = {cell.defense for cell in filled if cell.status == "incomplete"}
    asked = [c.name for c in prepared.contenders if c.role == "asked"]
    names = [name for name in asked if name not in unfinished]
    return record.with_examined(names, [epsilon.text for epsilon in prepared.examined])


def summarise(store: RunStore, record: RunRecord, known: Iterable[CellResult] = ()) -> Result:
    """Write everything that follows from the outcomes: summary, leaderboard, manifest.

    What is known of them was read before, and is not read again.
    """
    result = result_of(store, record, known)
    summary = result.summary
    store.write_json("summary.json", summary)
    store.write_json("evidence.json", evidence_file(summary))
    store.write_text("leaderboard.md", render_leaderboard([summary]))
    store.write_manifest()
    return result


def load_results(folder: Path | str) -> Result:
    """A stored run.

    Raises:
        StoreError: there is none in this folder, or it is damaged.
    """
    return result_of(*open_run(Path(folder)))


def result_of(store: RunStore, record: RunRecord, known: Iterable[CellResult] = ()) -> Result:
    """What follows from the outcomes that a record names; nothing is written."""
    results = read_cells(store, record, known)
    summary = build(record, results, examined(record, results))
    return Result(summary, outcomes_frame(results), store.folder)
