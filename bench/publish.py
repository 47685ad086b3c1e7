"""Publishing: a finished run's summary, copied to where it is committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.errors import StoreError
from bench.record.files import write_bytes
from bench.record.store import open_run

if TYPE_CHECKING:
    from pathlib import Path


def publish_run(folder: Path, published: Path) -> Path:
    """Copy the summary of a finished run whose files are as its manifest says; give its path.

    Raises:
        StoreError: the run is unfinished, or a file was changed since.
    """
    store, record = open_run(folder)
    if record.status != "complete":
        raise StoreError(f"{folder} is {record.status}; finish it by running its command again")
    faults = store.manifest_faults()
    if faults:
        raise StoreError(f"{folder} does not hold what its manifest says: {faults[0]}")
    target = published / record.id / "summary.json"
    write_bytes(target, (folder / "summary.json").read_bytes())
    return target
