"""The smallest adversarial example found for each example, by the run's norm.

Found at norm d it breaks its example at every epsilon >= d, so these tensors alone prove every
worst-case figure of the run. They lie in blocks of a fixed number of examples, whatever the shard
size, and the choice among equals does not depend on the order in which shards end.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import StoreError
from bench.record.files import write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

BLOCK = 50


class Found(NamedTuple):
    """One adversarial example."""

    example: int
    """Of the example, in the run's data."""
    distance: float
    """In the run's norm, float64."""
    origin: str
    """The attack and epsilon that found it, `attack @ epsilon`."""
    input: np.ndarray
    """float32, (C, H, W)."""


class Smallest:
    """The smallest adversarial examples of one defense in one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._blocks: dict[int, dict[int, Found]] = {}

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:04d}.safetensors"

    def _block(self, block: int) -> dict[int, Found]:
        if block not in self._blocks:
            path = self._path(block)
            self._blocks[block] = _read(path) if path.is_file() else {}
        return self._blocks[block]

    def add(self, found: Iterable[Found]) -> None:
        """Keep those that are smaller than what is known, and write the blocks that changed."""
        changed = set()
        for item in found:
            block = self._block(item.example // BLOCK)
            known = block.get(item.example)
            if known is None or (item.distance, item.origin) < (known.distance, known.origin):
                block[item.example] = item
                changed.add(item.example // BLOCK)
        for number in sorted(changed):
            _write(self._path(number), self._blocks[number])

    def all(self) -> dict[int, Found]:
        """Every stored one, by the index of its example.

        Raises:
            StoreError: a file is damaged.
        """
        for path in sorted(self.folder.glob("*.safetensors")):
            self._block(int(path.stem))
        return {index: item for block in self._blocks.values() for index, item in block.items()}


def _write(path: Path, block: dict[int, Found]) -> None:
    import numpy as np
    import safetensors.numpy

    items = [block[index] for index in sorted(block)]
    tensors = {
        "index": np.array([item.example for item in items], dtype=np.int64),
        "distance": np.array([item.distance for item in items], dtype=np.float64),
        "input": np.stack([item.input for item in items]).astype(np.float32),
    }
    origins = json.dumps([item.origin for item in items])
    write_bytes(path, safetensors.numpy.save(tensors, metadata={"origin": origins}))


def _read(path: Path) -> dict[int, Found]:
    import safetensors

    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            origins = json.loads(file.metadata()["origin"])
            arrays = [file.get_tensor(name) for name in ("index", "distance", "input")]
        return {
            int(index): Found(int(index), float(distance), str(origin), tensor)
            for index, distance, tensor, origin in zip(*arrays, origins, strict=True)
        }
    except (OSError, ValueError, TypeError, KeyError, safetensors.SafetensorError) as error:
        raise StoreError(f"{path} is damaged: {error}; run the command with --fresh") from error
