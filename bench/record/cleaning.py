"""Making room: what of the stored runs can go, and its removal.

Only what Winnow wrote as a run is ever removed: a folder that holds `run.json`, or nothing but the
lock of a process that was killed. What is published holds neither.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import StoreError
from bench.record.files import TEMPORARY, locked
from bench.record.runs import LOCK, StoredRun, partial_files, stored_runs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

PUBLISHED = "published"


@dataclass(frozen=True)
class Removal:
    """A run that goes, or a file that was left half written."""

    path: Path
    bytes: int
    why: str
    folder: Path
    """Of the run that it is, or is in: nothing goes while a process holds it."""

    @property
    def run(self) -> bool:
        """Whether it is a whole run."""
        return self.path == self.folder


def plan_cleaning(
    out: Path, chosen: Sequence[Path] = (), *, unfinished: bool = False
) -> list[Removal]:
    """What would be removed; nothing is touched. Runs that a process works on are left alone.

    Args:
        out: the folder of runs.
        chosen: runs in it that go whatever their state.
        unfinished: whether those go that were interrupted, failed, or cannot be read.

    Raises:
        StoreError: one that was chosen is in use, is published, or is not a run in `out`.
    """
    runs = stored_runs(out)
    known = {run.folder.resolve(): run for run in runs}
    for path in chosen:
        _check_chosen(path, known.get(path.resolve()), out)
    wanted = {path.resolve() for path in chosen}
    going: list[Removal] = []
    for run in runs:
        if run.state == "running" or _is_published(run.folder):
            continue
        if run.folder.resolve() in wanted:
            going.append(Removal(run.folder, run.bytes, f"chosen, {run.state}", run.folder))
        elif unfinished and run.state != "complete" and _is_ours(run):
            going.append(Removal(run.folder, run.bytes, run.state, run.folder))
        else:
            going += [
                Removal(path, path.stat().st_size, "half written", run.folder)
                for path in partial_files(run.folder)
            ]
    return going


def _check_chosen(path: Path, run: StoredRun | None, out: Path) -> None:
    if _is_published(path):
        raise StoreError(f"{path} is published: it is never removed from here")
    if run is None:
        raise StoreError(f"{path} is not the folder of a run in {out}; say where runs are by --out")
    if run.state == "running":
        raise StoreError(f"{path} is in use; wait for its process, or stop it")
    if not _is_ours(run):
        raise StoreError(
            f"{path} is not removed: it is not what Winnow wrote ({run.reason}); look at it, and "
            "remove it by hand"
        )


def _is_published(path: Path) -> bool:
    return PUBLISHED in path.resolve().parts


def _is_ours(run: StoredRun) -> bool:
    """Whether a folder is a run by its record, or nothing but what a killed process left."""
    if run.record is not None:
        return run.record.id == run.folder.name
    files = [path for path in run.folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    return all(path.name == LOCK or path.name.endswith(TEMPORARY) for path in files)


def clean(removals: Sequence[Removal]) -> None:
    """Remove what was planned.

    Raises:
        StoreError: a run came into use, or something cannot be removed; what is before it is gone.
    """
    for item in removals:
        try:
            with locked(item.folder):
                if item.run:
                    shutil.rmtree(item.path)
                else:
                    item.path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"cannot remove {item.path}: {error.strerror or error}") from error
