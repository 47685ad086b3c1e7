"""One run's folder: outcomes per shard, smallest adversarial examples, record and manifest.

Everything is written atomically by one process, so that a run killed at any moment is continued
from its folder: a shard is there whole or not at all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.errors import StoreError
from bench.record.files import (
    TEMPORARY,
    canonical_json,
    digest_of_file,
    read_json,
    remove_partial,
    write_bytes,
    write_json,
)
from bench.record.outcomes import Outcomes, Smallest
from bench.record.schema import RunRecord

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.record.schema import DatasetRecord

MANIFEST = "manifest.json"
EXAMPLES = "examples.safetensors"


class RunStore:
    """Reads and writes the folder of one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._smallest: dict[str, Smallest] = {}

    def clean_up(self) -> None:
        """Remove what a killed process left half written."""
        remove_partial(self.folder)

    def clear(self) -> None:
        """Forget everything stored (`--fresh`)."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path.name != ".lock":
                path.unlink()
        self._smallest.clear()

    def clear_errors(self) -> None:
        """Forget the errors of the last attempt: what still fails writes them again."""
        for path in (self.folder / "errors").glob("*.txt"):
            path.unlink()

    # --- outcomes -------------------------------------------------------------------------------

    def shard_path(self, key: str, shard: int) -> Path:
        """Where a shard's outcomes lie."""
        return self.folder / "cells" / key / f"{shard:04d}.parquet"

    def has(self, key: str, shard: int) -> bool:
        """Whether a shard is stored."""
        return self.shard_path(key, shard).is_file()

    def put(self, key: str, shard: int, outcomes: Outcomes) -> None:
        """Store a shard."""
        outcomes.save(self.shard_path(key, shard))

    def get(self, key: str, shard: int) -> Outcomes:
        """Read a shard."""
        return Outcomes.load(self.shard_path(key, shard))

    def shards(self, key: str) -> Iterator[Outcomes]:
        """Every stored shard of a cell, in order."""
        for path in sorted((self.folder / "cells" / key).glob("*.parquet")):
            yield Outcomes.load(path)

    # --- adversarial examples -------------------------------------------------------------------

    def smallest(self, defense_key: str) -> Smallest:
        """The smallest adversarial examples of a defense."""
        if defense_key not in self._smallest:
            self._smallest[defense_key] = Smallest(self.folder / "adversarial" / defense_key)
        return self._smallest[defense_key]

    # --- examples that a program passed ---------------------------------------------------------

    def write_examples(self, examples: Examples) -> None:
        """Keep examples that no data set holds, so that the run can be verified."""
        import safetensors.torch

        tensors = {"inputs": examples.inputs.cpu(), "labels": examples.labels.cpu()}
        write_bytes(self.folder / EXAMPLES, safetensors.torch.save(tensors))

    def read_examples(self, dataset: DatasetRecord) -> Examples:
        """The examples that `write_examples` kept.

        Raises:
            StoreError: they are missing or damaged.
        """
        import safetensors.torch

        path = self.folder / EXAMPLES
        try:
            tensors = safetensors.torch.load_file(path)
            inputs, labels = tensors["inputs"], tensors["labels"]
        except (OSError, KeyError, safetensors.SafetensorError) as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        return Examples.of(inputs, labels, dataset.class_names, dataset.name)

    # --- the record -----------------------------------------------------------------------------

    def read_record(self) -> RunRecord | None:
        """`run.json`, or None where there is none yet."""
        path = self.folder / "run.json"
        return RunRecord.read(read_json(path), str(path)) if path.is_file() else None

    def write_record(self, record: RunRecord) -> None:
        """Write `run.json`."""
        write_json(self.folder / "run.json", record.model_dump(mode="json", by_alias=True))

    def put_back_record(self, record: RunRecord | None) -> None:
        """Leave `run.json` as it was before a run that could not start."""
        if record is not None:
            self.write_record(record)
        else:
            (self.folder / "run.json").unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        """Write a text file of the run."""
        write_bytes(self.folder / name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run."""
        write_json(self.folder / name, value)

    # --- the manifest ---------------------------------------------------------------------------

    def files(self) -> dict[str, str]:
        """SHA-256 of every file of the run by its relative path, but for the manifest itself."""
        return {
            path.relative_to(self.folder).as_posix(): digest_of_file(path)
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
            and path.name not in (MANIFEST, ".lock")
            and not path.name.endswith(TEMPORARY)
        }

    def write_manifest(self) -> None:
        """Write `manifest.json`: call it last."""
        self.write_json(MANIFEST, self.files())

    def manifest_faults(self) -> list[str]:
        """What is not as the manifest says, a sentence each."""
        path = self.folder / MANIFEST
        if not path.is_file():
            return [f"{MANIFEST} is missing: the run did not finish; run the same command again"]
        try:
            listed: dict[str, str] = json.loads(path.read_bytes())
        except ValueError:
            return [f"{MANIFEST} is not JSON"]
        if not isinstance(listed, dict) or canonical_json(listed) != path.read_bytes():
            return [f"{MANIFEST} was changed"]
        present = self.files()
        faults = [f"{name} is missing" for name in sorted(listed.keys() - present.keys())]
        faults += [f"{name} is not in the manifest" for name in sorted(present.keys() - listed)]
        faults += [
            f"{name} was changed"
            for name in sorted(listed.keys() & present.keys())
            if listed[name] != present[name]
        ]
        return faults


def open_run(folder: Path) -> tuple[RunStore, RunRecord]:
    """A finished or unfinished run for reading.

    Raises:
        StoreError: there is no run in this folder.
    """
    store = RunStore(folder)
    record = store.read_record()
    if record is None:
        raise StoreError(f"no run in {folder}: it has no run.json")
    return store, record
