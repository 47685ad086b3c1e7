"""The folder of runs: which are there, which one a name means, and what can go.

Only what Winnow wrote as a run is ever removed: a folder that holds `run.json`, or nothing but the
lock of a process that was killed. What is published holds neither.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import StoreError, UnknownNameError, UsageError
from bench.record.files import LOCK, TEMPORARY, is_held, locked, read_json
from bench.record.older import upgraded
from bench.record.schema import SCHEMA_VERSION
from bench.record.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.record.schema import RunRecord

#: Names the run that was written last.
LATEST = "latest"

PUBLISHED = "published"

State = Literal["complete", "interrupted", "failed", "running", "damaged"]


@dataclass(frozen=True)
class StoredRun:
    """One folder below the folder of runs."""

    folder: Path
    record: RunRecord | None
    """None where there is none, or none that can be read."""
    state: State
    """`running` while a process holds the folder; a run that was killed is `interrupted`."""
    bytes: int
    """On the disk."""
    reason: str = ""
    """Why it is damaged."""


def stored_runs(out: Path) -> list[StoredRun]:
    """The runs below a folder by date and then name; links are none, nor are published summaries.

    A folder without `run.json` is a run where a process that was killed left its lock in it.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder of runs; say where they are by --out")
    if not out.is_dir():
        return []
    folders = [
        path
        for path in sorted(out.iterdir())
        if path.is_dir()
        and not path.is_symlink()
        and ((path / "run.json").is_file() or (path / LOCK).is_file())
    ]
    return sorted(map(look_at, folders), key=lambda run: (_date(run), run.folder.name))


def look_at(folder: Path) -> StoredRun:
    """A run as far as it can be read; one that is damaged is described, not refused."""
    size, held = size_of(folder), is_held(folder)
    try:
        record = RunStore(folder).read_record()
    except StoreError as error:
        return StoredRun(folder, None, "running" if held else "damaged", size, str(error))
    if record is None:
        reason = "it has no run.json"
        return StoredRun(folder, None, "running" if held else "damaged", size, reason)
    left = "interrupted" if record.status == "running" else record.status
    return StoredRun(folder, record, "running" if held else left, size)


def _date(run: StoredRun) -> str:
    return str(run.record.provenance.get("date", "")) if run.record else ""


def size_of(folder: Path) -> int:
    """Bytes in a folder's files; links are not followed."""
    return sum(
        path.lstat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )


def find_run(text: str, out: Path) -> Path:
    """The run that a path, an id, the beginning of one, or `latest` means.

    Args:
        text: as written.
        out: the folder in which ids are looked for.

    Raises:
        UnknownNameError: there is none.
        UsageError: several begin so, or a folder holds none.
    """
    path = Path(text)
    if path.is_dir() and any((path / name).is_file() for name in ("run.json", "summary.json")):
        return path
    ids = sorted(
        child.name
        for child in (out.iterdir() if out.is_dir() else ())
        if any((child / name).is_file() for name in ("run.json", "summary.json"))
    )
    if text == LATEST and (written := list(out.glob("*/run.json"))):
        return max(written, key=lambda path: (path.stat().st_mtime_ns, path)).parent
    matching = [name for name in ids if text and name.startswith(text)]
    if len(matching) == 1:
        return out / matching[0]
    if matching:
        raise UsageError(
            f"{len(matching)} runs in {out} begin with {text!r}: {', '.join(matching)}; "
            "write more of the id"
        )
    if path.is_dir():
        raise UsageError(f"no run in {path}: it has neither run.json nor summary.json")
    raise UnknownNameError(f"run in {out}", text, ids)


def stored_summary(folder: Path) -> dict[str, Any]:
    """The `summary.json` of a run whose files are as its manifest says, or of a published one.

    Raises:
        StoreError: it is missing, damaged or of another schema, or a file was changed since.
    """
    if (folder / "run.json").is_file() and (faults := RunStore(folder).manifest_faults()):
        raise StoreError(
            f"{folder} does not hold what its manifest says: {faults[0]}; run its command again"
        )
    return read_summary(folder)


def read_summary(folder: Path) -> dict[str, Any]:
    """The `summary.json` of a run, finished or not.

    Raises:
        StoreError: it is missing, damaged or of another schema.
    """
    path = folder / "summary.json"
    if not path.is_file():
        raise StoreError(
            f"no summary.json in {folder}; name the folder of a finished run, such as "
            "results/runs/0123456789abcdef"
        )
    summary = read_json(path)
    if not isinstance(summary, dict) or not isinstance(summary.get("defenses"), dict):
        raise StoreError(f"{path} is not the summary of a run")
    if summary.get("schema") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {summary.get('schema')}; this Winnow reads {SCHEMA_VERSION}"
        )
    return upgraded(summary)


def partial_files(folder: Path) -> list[Path]:
    """What killed processes left half written in a folder."""
    return sorted(path for path in folder.rglob(f".*{TEMPORARY}") if path.is_file())


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
