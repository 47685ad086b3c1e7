"""The folder of runs: which are there, which one a name means, and what can go."""

from __future__ import annotations

import difflib
import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import StoreError, UsageError
from bench.record.files import TEMPORARY, read_json
from bench.record.schema import SCHEMA_VERSION
from bench.record.store import RunStore

if TYPE_CHECKING:
    from bench.record.schema import RunRecord

LOCK = ".lock"
#: Names the run that was written last.
LATEST = "latest"
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


def is_held(folder: Path) -> bool:
    """Whether a process is working in a run's folder."""
    try:
        with (folder / LOCK).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def find_run(text: str, out: Path) -> Path:
    """The run that a path, an id, the beginning of one, or `latest` means.

    Args:
        text: as written.
        out: the folder in which ids are looked for.

    Raises:
        UsageError: there is none, or several begin so.
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
    close = difflib.get_close_matches(text, ids, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "say where runs are with --out"
    raise UsageError(
        f"no run in {text}: there is no such folder, and of the {len(ids)} runs in {out} none "
        f"begins so; {hint}"
    )


def stored_summary(folder: Path) -> dict[str, Any]:
    """The `summary.json` of a run whose files are as its manifest says, or of a published one.

    Raises:
        StoreError: it is missing, damaged or of another schema, or a file was changed since.
    """
    if (folder / "run.json").is_file() and (faults := RunStore(folder).manifest_faults()):
        raise StoreError(
            f"{folder} does not hold what its manifest says: {faults[0]}; run its command again"
        )
    path = folder / "summary.json"
    summary = read_json(path)
    if not isinstance(summary, dict) or not isinstance(summary.get("defenses"), dict):
        raise StoreError(f"{path} is not the summary of a run")
    if summary.get("schema") != SCHEMA_VERSION:
        raise StoreError(
            f"{path} has schema version {summary.get('schema')}; this Winnow reads {SCHEMA_VERSION}"
        )
    return summary


def partial_files(folder: Path) -> list[Path]:
    """What killed processes left half written in a folder."""
    return sorted(path for path in folder.rglob(f".*{TEMPORARY}") if path.is_file())
