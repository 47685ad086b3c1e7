"""One run's folder: outcomes per shard, smallest adversarial examples, record and manifest.

Everything is written atomically by one process, so that a run killed at any moment is continued
from its folder: a shard is there whole or not at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.errors import StoreError, printable
from bench.record.adversarial import Smallest
from bench.record.damage import DAMAGE, first_line
from bench.record.files import (
    LOCK,
    TEMPORARY,
    Within,
    canonical_json,
    digest_of_file,
    read_bytes,
    read_json,
    remove_partial,
    write_bytes,
    write_json,
)
from bench.record.outcomes import Outcomes
from bench.record.schema import RunRecord

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    import numpy as np

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
        found = Within.of(self.folder)
        for path in (*found.files, *found.others):  # a link itself goes, never what it names
            if path != self.folder / LOCK:
                path.unlink()
        for path in reversed(found.folders):
            path.rmdir()
        self._smallest.clear()

    def check_plain(self) -> None:
        """Refuse a folder that holds links, pipes or devices: nothing is read or written there.

        Raises:
            StoreError: naming the first.
        """
        for path in Within.of(self.folder).others:
            raise StoreError(
                f"{path} is a link, a pipe or a device: Winnow writes none, and goes through none; "
                "remove it, or run with --fresh"
            )

    def clear_errors(self, but: Collection[str] = ()) -> None:
        """Forget the errors of the last attempt: what still fails writes them again.

        Args:
            but: the keys of cells that this attempt is not about.
        """
        for path in (self.folder / "errors").glob("*.txt"):
            if path.name.rpartition("-")[0] not in but:
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

    def shards(self, key: str, most: int | None = None) -> Iterator[Outcomes]:
        """Every stored shard of a cell, in order.

        Args:
            key: of the cell.
            most: the examples that one can hold; any number where None.
        """
        for path in sorted((self.folder / "cells" / key).glob("*.parquet")):
            yield Outcomes.load(path, most)

    def forget_other_cut(self, key: str, blocks: Mapping[int, tuple[int, int]], n: int) -> None:
        """Forget an unfinished cell whose shards end elsewhere than these, as earlier ones did.

        Args:
            key: of the cell.
            blocks: the (start, stop) of each of its shards, by number.
            n: examples of the run.

        Raises:
            StoreError: a shard is damaged.
        """
        here = {path: _block(path) for path in (self.folder / "cells" / key).glob("*.parquet")}
        if sum(stop - start for start, stop in here.values()) == n:
            return  # it is finished, however it was cut
        wanted = {self.shard_path(key, number): block for number, block in blocks.items()}
        if not here.items() <= wanted.items():
            for path in here:
                path.unlink()

    def stored_keys(self) -> list[str]:
        """The cells of which something is stored, ascending."""
        return sorted(path.name for path in (self.folder / "cells").glob("*"))

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
            tensors = safetensors.torch.load(read_bytes(path))
            inputs, labels = tensors["inputs"], tensors["labels"]
        except StoreError:
            raise
        except (*DAMAGE, safetensors.SafetensorError) as error:
            raise StoreError(f"cannot read {path}: {first_line(error)}") from error
        return Examples.of(inputs, labels, dataset.class_names, dataset.name)

    def read_inputs(self) -> np.ndarray:
        """The inputs alone, without torch: float32, (N, C, H, W).

        Raises:
            StoreError: they are missing or damaged.
        """
        import safetensors.numpy

        path = self.folder / EXAMPLES
        try:
            inputs: np.ndarray = safetensors.numpy.load(read_bytes(path))["inputs"]
        except StoreError:
            raise
        except (*DAMAGE, safetensors.SafetensorError) as error:
            raise StoreError(f"cannot read {path}: {first_line(error)}") from error
        return inputs

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
        """Write a text file of the run, without what would steer a terminal that shows it."""
        write_bytes(self.folder / name, printable(text).encode())

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run."""
        write_json(self.folder / name, value)

    # --- the manifest ---------------------------------------------------------------------------

    def files(self) -> dict[str, str]:
        """SHA-256 of every file of the run by its relative path, but for the manifest itself."""
        return {
            path.relative_to(self.folder).as_posix(): digest_of_file(path)
            for path in Within.of(self.folder).files
            if path.relative_to(self.folder).as_posix() not in (MANIFEST, LOCK)
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
            listed: dict[str, str] = read_json(path)
        except StoreError as error:
            return [str(error)]
        if not isinstance(listed, dict) or canonical_json(listed) != read_bytes(path):
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
    store.check_plain()
    return store, record


def _block(path: Path) -> tuple[int, int]:
    """The (start, stop) of a shard, from the foot of its file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        index = pq.read_metadata(path).row_group(0).column(0).statistics
        if index is not None and index.has_min_max:
            return int(index.min), int(index.max) + 1
    except (OSError, pa.ArrowException):
        pass  # reading it tells what is wrong
    return Outcomes.load(path).block
