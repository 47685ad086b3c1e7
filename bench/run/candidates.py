"""Adversarial examples that somebody else made: their file, and the attack that they stand for.

The file is only ever a claim. It is npz (read without pickles) or safetensors and holds

- `adversarial`: floating point in [0, 1], (N, C, H, W);
- `index`: whole numbers, (N,), which example of the run each belongs to; where it is left out,
  there is one for every example, in order.

Names, shapes and types are read before anything else is, so that a file cannot fill the memory.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api import Candidates
from bench.errors import DataError
from bench.record.files import digest_of_file
from bench.run.file_kinds import ADVERSARIAL, described, kind_of
from bench.threat import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np

    from bench.api import Examples

INDEX = "index"


@dataclass(frozen=True)
class CandidateFile:
    """A file of candidates whose arrays are known by name, shape and type, and not read yet."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    """Of `adversarial` and, where it is there, `index`."""
    npz: bool
    """Whether it is an npz; else it is safetensors."""

    @classmethod
    def open(cls, path: Path) -> CandidateFile:
        """Look into a file.

        Raises:
            DataError: unreadable, neither npz nor safetensors, or other arrays than these; it says
                what the file is and how to convert it.
        """
        try:
            with path.open("rb") as file:
                start = file.read(512)
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        if kind := kind_of(path, start):
            raise DataError(kind)
        npz = start.startswith(b"PK\x03\x04")
        try:
            shapes = _npz_shapes(path) if npz else _tensor_shapes(path)
        except DataError:
            raise
        except Exception as error:  # whatever a foreign file makes a reader raise
            raise _unreadable(path, error) from error
        if ADVERSARIAL not in shapes:
            opened = "numpy.load({})" if npz else "safetensors.numpy.load_file({})"
            raise DataError(described(path, shapes, opened))
        shape = shapes[ADVERSARIAL]
        if len(shape) != 4 or not all(shape):
            raise DataError(f"{path}: `adversarial` has to be (N, C, H, W), N ≥ 1; got {shape}")
        if INDEX in shapes and shapes[INDEX] != shape[:1]:
            raise DataError(
                f"{path}: `index` has to be of shape ({shape[0]},), one example for each of "
                f"`adversarial`; got {shapes[INDEX]}"
            )
        known = {key: shapes[key] for key in (ADVERSARIAL, INDEX) if key in shapes}
        return cls(path, known, npz)

    def __len__(self) -> int:
        return self.shapes[ADVERSARIAL][0]

    @property
    def indexed(self) -> bool:
        """Whether it says which examples it is about."""
        return INDEX in self.shapes

    def read(self, examples: Examples) -> Candidates:
        """The candidates for the examples of a run.

        Raises:
            DataError: other shapes or examples than the run's, or values in other units.
        """
        import numpy as np

        shape, n = self.shapes[ADVERSARIAL], len(examples)
        if shape[1:] != examples.shape:
            last = (shape[3], *shape[1:3]) == examples.shape
            raise DataError(
                f"{self.path}: `adversarial` holds examples of shape {shape[1:]}; those of "
                f"{examples.name} are {examples.shape}"
                + (" (transpose(0, 3, 1, 2) puts the channels first)" if last else "")
            )
        if len(self) > n or (len(self) < n and not self.indexed):
            raise DataError(
                f"{self.path} holds {len(self)} adversarial examples for a run of {n} examples; "
                "say with an array `index` which they belong to, or give --n"
            )
        digest = digest_of_file(self.path)
        try:
            arrays = (_read_npz if self.npz else _read)(self.path, self.shapes)
        except Exception as error:  # whatever a foreign file makes a reader raise
            raise _unreadable(self.path, error) from error
        changed = any(arrays[key].shape != shape for key, shape in self.shapes.items())
        if changed or digest_of_file(self.path) != digest:
            raise DataError(f"{self.path} changed while it was read")
        candidates = arrays[ADVERSARIAL]
        if not np.issubdtype(candidates.dtype, np.floating):
            raise DataError(
                f"{self.path}: `adversarial` has to be floating point in [0, 1]; got "
                f"{candidates.dtype} (divide 8-bit images by 255)"
            )
        candidates = candidates.astype(np.float32)
        self._check_units(candidates)
        index = self._index(arrays.get(INDEX), n)
        order = np.argsort(index)
        ordered = np.ascontiguousarray(candidates[order])
        return Candidates(digest, tuple(index[order].tolist()), ordered)

    def _index(self, index: np.ndarray | None, n: int) -> np.ndarray:
        import numpy as np

        if index is None:
            return np.arange(n)
        if not np.issubdtype(index.dtype, np.integer):
            raise DataError(f"{self.path}: `index` has to be whole numbers; got {index.dtype}")
        outside = index[(index < 0) | (index >= n)]
        if len(outside):
            raise DataError(
                f"{self.path}: `index` has to be in 0 … {n - 1}, the examples of the run; got "
                f"{outside[0]} (a run of more examples is asked for with --n)"
            )
        if len(np.unique(index)) != len(index):
            raise DataError(f"{self.path}: `index` names an example twice")
        return index.astype(np.int64)

    def _check_units(self, candidates: np.ndarray) -> None:
        """Refuse a file most of which is outside the box: single candidates are for the judge."""
        import numpy as np

        flat = candidates.reshape(len(candidates), -1)
        finite = np.isfinite(flat).all(axis=1)
        if not finite.any():
            raise DataError(f"{self.path}: not one of the candidates is finite")
        flat = flat[finite]
        outside = ((flat < -TOLERANCE) | (flat > 1 + TOLERANCE)).any(axis=1)
        if 2 * outside.sum() > len(flat):
            raise DataError(
                f"{self.path}: most candidates lie outside [0, 1] (from {flat.min():.4g} to "
                f"{flat.max():.4g}); divide 8-bit images by 255, and undo standardisation"
            )


def _unreadable(path: Path, error: Exception) -> DataError:
    said = str(error).strip().splitlines()
    return DataError(
        f"{path} is neither a whole npz without pickles nor a safetensors file "
        f"({type(error).__name__}: {said[0] if said else 'no message'}); nothing in it was executed"
    )


def _npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the arrays of an npz, from their headers alone."""
    from numpy.lib import format as npy

    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for file in archive.namelist():
            if not file.endswith(".npy"):
                continue
            with archive.open(file) as member:
                version = npy.read_magic(member)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, dtype = read(member)
            name = file.removesuffix(".npy")
            if dtype.hasobject and name in (ADVERSARIAL, INDEX):
                raise DataError(
                    f"{path}: `{name}` is pickled objects, which are not read; nothing in it was "
                    "executed"
                )
            shapes[name] = shape
    return shapes


def _tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors of a safetensors file, from its header alone."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def _read_npz(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """These arrays of an npz whose shapes were found to be right."""
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in names}


def _read(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """These tensors of a safetensors file whose shapes were found to be right."""
    import safetensors

    with safetensors.safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in names}
