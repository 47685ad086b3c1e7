"""The smallest adversarial example found for each example of a run, by the run's norm.

Found at norm d it breaks its example at every epsilon >= d, so these tensors alone prove every
worst-case figure of the run. They lie in blocks of a fixed number of examples, whatever the shard
size, and the choice among equals does not depend on the order in which shards end.

Of large images what is stored is how their bits differ from the unperturbed example, compressed:
nothing is lost, and whoever reads them needs the examples of the run.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import StoreError
from bench.record.damage import (
    DAMAGE,
    check_block,
    check_inputs,
    check_packed,
    first_line,
    header_of,
)
from bench.record.files import read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

BLOCK = 50
#: Values of an input from which on it is compressed: 3 x 64 x 64 is not.
LARGE = 2**14
#: With what a compressed input begins: how its bits differ from the unperturbed ones, or as it is.
DIFFERENCE, PLAIN = b"\1", b"\0"


class Packed(NamedTuple):
    """An adversarial input, compressed."""

    data: bytes
    shape: tuple[int, ...]
    """(C, H, W) of the input."""


class Found(NamedTuple):
    """One adversarial example."""

    example: int
    """Of the example, in the run's data."""
    distance: float
    """In the run's norm, float64."""
    origin: str
    """The attack and epsilon that found it, `attack @ epsilon`."""
    input: Any
    """float32 array, (C, H, W); `Packed` where it is large."""

    @property
    def rank(self) -> tuple[float, str]:
        """By what the smallest is chosen."""
        return self.distance, self.origin


def packed(moved: np.ndarray, clean: np.ndarray) -> np.ndarray | Packed:
    """An adversarial input as it is stored: compressed where it is large.

    What is compressed are the differences of the bits as whole numbers, small ones first in each
    byte, in the order of the unperturbed values: an attack moves equal values alike.

    Args:
        moved: float32, (C, H, W).
        clean: the unperturbed input, likewise.
    """
    import numpy as np
    import pyarrow as pa

    if moved.size < LARGE:
        return moved
    moved = np.ascontiguousarray(moved, dtype=np.float32)
    difference = (moved.view(np.int32) - clean.view(np.int32)).ravel()[_order(clean)]
    folded = (difference << 1) ^ (difference >> 31)
    columns = np.ascontiguousarray(folded.view(np.uint8).reshape(-1, 4).T)
    data = pa.compress(columns.tobytes(), codec="zstd", asbytes=True)
    return Packed(DIFFERENCE + data, moved.shape)


def unpacked(stored: np.ndarray | Packed, clean: np.ndarray) -> np.ndarray:
    """The adversarial input that `packed` got, bit for bit.

    Args:
        stored: what it gave.
        clean: the unperturbed input, float32, of the same shape.

    Raises:
        ValueError: it is damaged, or not finite.
    """
    import numpy as np
    import pyarrow as pa

    if not isinstance(stored, Packed):
        return stored
    kind, data, size = stored.data[:1], stored.data[1:], math.prod(stored.shape)
    if kind not in (DIFFERENCE, PLAIN) or clean.shape != stored.shape:
        raise ValueError("it is not compressed as Winnow does it, or of another example")
    if kind == PLAIN:
        moved = np.frombuffer(data, dtype=np.float32).reshape(stored.shape)
    else:
        try:
            columns = pa.decompress(data, decompressed_size=4 * size, codec="zstd", asbytes=True)
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"it is damaged ({first_line(error)})") from error
        parts = np.frombuffer(columns, dtype=np.uint8).reshape(4, size).T
        folded = np.ascontiguousarray(parts).view(np.uint32).ravel()
        difference = np.empty(size, dtype=np.int32)
        difference[_order(clean)] = ((folded >> 1) ^ -(folded & 1)).view(np.int32)
        bits = difference + clean.view(np.int32).ravel()
        moved = bits.view(np.float32).reshape(stored.shape)
    if not np.isfinite(moved).all():
        raise ValueError("a number is not finite")
    return moved


def _order(clean: np.ndarray) -> np.ndarray:
    """The places of the values, by their 256 levels."""
    import numpy as np

    levels = (np.clip(clean.ravel(), 0, 1) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    order: np.ndarray = np.argsort(levels, kind="stable")
    return order


class Smallest:
    """The smallest adversarial examples of one defense in one run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ranks: dict[int, dict[int, tuple[float, str]]] = {}

    def _path(self, block: int) -> Path:
        return self.folder / f"{block:04d}.safetensors"

    def _block(self, block: int) -> dict[int, Found]:
        path = self._path(block)
        return _read(path) if path.is_file() else {}

    def _known(self, block: int) -> dict[int, tuple[float, str]]:
        if block not in self._ranks:
            self._ranks[block] = _ranks(self._block(block))
        return self._ranks[block]

    def add(self, found: Iterable[Found]) -> None:
        """Keep those that are smaller than what is known, and write the blocks that changed.

        Raises:
            StoreError: a file is damaged, or cannot be written.
        """
        better: dict[int, dict[int, Found]] = {}
        for item in found:
            number = item.example // BLOCK
            new = better.setdefault(number, {})
            held = new.get(item.example)
            known = held.rank if held else self._known(number).get(item.example)
            if known is None or item.rank < known:
                new[item.example] = item
        for number, new in sorted(better.items()):
            if new:
                block = self._block(number) | new
                _write(self._path(number), block)
                self._ranks[number] = _ranks(block)

    def all(self) -> dict[int, Found]:
        """Every stored one, by the index of its example.

        Raises:
            StoreError: a file is damaged.
        """
        return {
            index: item for number in self._numbers() for index, item in self._block(number).items()
        }

    def distances(self) -> dict[int, float]:
        """The distance of every stored one, by the index of its example.

        Raises:
            StoreError: a file is damaged.
        """
        known = (self._known(number) for number in self._numbers())
        return {index: rank[0] for block in known for index, rank in block.items()}

    def _numbers(self) -> list[int]:
        paths = sorted(self.folder.glob("*.safetensors"))
        for path in paths:
            if not path.stem.isdecimal():
                raise StoreError(f"{path} is not a block of adversarial examples")
        return [int(path.stem) for path in paths]


def _ranks(block: dict[int, Found]) -> dict[int, tuple[float, str]]:
    """By what each example's is chosen."""
    return {index: item.rank for index, item in block.items()}


def _write(path: Path, block: dict[int, Found]) -> None:
    import numpy as np
    import safetensors.numpy

    items = [block[index] for index in sorted(block)]
    tensors = {
        "index": np.array([item.example for item in items], dtype=np.int64),
        "distance": np.array([item.distance for item in items], dtype=np.float64),
    }
    if any(isinstance(item.input, Packed) for item in items):
        data = [_data(item.input) for item in items]
        tensors["packed"] = np.frombuffer(b"".join(data), dtype=np.uint8)
        tensors["lengths"] = np.array([*map(len, data)], dtype=np.int64)
        tensors["shape"] = np.array(items[0].input.shape, dtype=np.int64)
    else:
        tensors["input"] = np.stack([np.asarray(item.input) for item in items]).astype(np.float32)
    origins = json.dumps([item.origin for item in items])
    write_bytes(path, safetensors.numpy.save(tensors, metadata={"origin": origins}))


def _data(stored: np.ndarray | Packed) -> bytes:
    """What stands for an input among compressed ones; as it is where an older version wrote it."""
    return stored.data if isinstance(stored, Packed) else PLAIN + stored.tobytes()


def _read(path: Path) -> dict[int, Found]:
    import safetensors.numpy

    try:
        data = read_bytes(path)
        origins = json.loads(header_of(data)["__metadata__"]["origin"])
        tensors = safetensors.numpy.load(data)
        index, distance = tensors["index"], tensors["distance"]
        check_block((index, distance), origins, int(path.stem), BLOCK)
        inputs = _inputs(tensors, len(index))
        found = zip(index.tolist(), distance.tolist(), origins, inputs, strict=True)
        return {item[0]: Found(*item) for item in found}
    except StoreError:
        raise
    except (*DAMAGE, safetensors.SafetensorError) as error:
        raise StoreError(
            f"{path} is damaged: {first_line(error)}; run the command with --fresh"
        ) from error


def _inputs(tensors: dict[str, Any], count: int) -> list[Any]:
    """The inputs of a block, compressed ones still so.

    Raises:
        ValueError, LookupError: they are not what they have to be.
    """
    if "packed" not in tensors:
        check_inputs(tensors["input"], count)
        return list(tensors["input"])
    data, lengths, shape = (tensors[name] for name in ("packed", "lengths", "shape"))
    check_packed((data, lengths, shape), count)
    inputs, start, of = [], 0, tuple(shape.tolist())
    for length in lengths.tolist():
        inputs.append(Packed(data[start : start + length].tobytes(), of))
        start += length
    return inputs
