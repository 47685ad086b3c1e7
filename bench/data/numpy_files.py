"""NumPy's files: which arrays there are, and how they are images or labels."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bench.data.foreign import what_is
from bench.data.trees import holds_classes
from bench.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

#: What files are, as `what_is` says it.
_ARCHIVE, _ARRAY = "a NumPy archive", "a NumPy array"
#: The channels that images have.
_CHANNELS = (1, 3)


class ArrayFiles:
    """The arrays of one `.npz` file, or of a folder of `.npy` files, by their names.

    Nothing is unpickled, and of a folder's files no more is read than is asked for.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: dict[str, np.ndarray] = {}

    @functools.cached_property
    def names(self) -> list[str]:
        """Of all arrays, sorted.

        Raises:
            DataError: the file cannot be read, or the folder holds no arrays.
        """
        if self.path.is_dir():
            return sorted(self._files)
        with _opened(self.path, _ARCHIVE) as file:
            ends = ".npy"
            return sorted(n.removesuffix(ends) for n in file.zip.namelist() if n.endswith(ends))

    @functools.cached_property
    def _files(self) -> dict[str, Path]:
        """The files of a folder by the names of their arrays."""
        found = {file.stem: file for file in self.path.iterdir() if file.suffix.lower() == ".npy"}
        if not found:
            deeper = sorted({file.parent for file in self.path.glob("*/*.npy")})
            why = f"they lie in {deeper[0].name}/: give npz:{deeper[0]}" if deeper else ""
            if not deeper and holds_classes(self.path):
                why = "it holds folders of images: give it as folder:PATH"
            why = why or what_is(self.path) or "give a .npz file, or a folder of .npy files"
            raise DataError(f"{str(self.path)!r} holds no .npy files: {why}")
        return found

    def array(self, name: str) -> np.ndarray:
        """One array, read once.

        Raises:
            DataError: it holds objects, or cannot be read.
        """
        if name not in self._read:
            if self.path.is_dir():
                self._read[name] = _opened(self._files[name], _ARRAY)
            else:
                with _opened(self.path, _ARCHIVE) as file:
                    self._read[name] = _member(file, name, self.path)
        return self._read[name]


def axes_of(name: str, shape: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, int, int]]:
    """The shape of one image with three axes as stored, and their order as (C, H, W).

    Raises:
        DataError: it is no shape of images.
    """
    if len(shape) == 3:
        return (1, *shape[1:]), (1, 2, 3)
    if len(shape) == 4 and shape[1] in _CHANNELS:
        return shape[1:], (1, 2, 3)
    if len(shape) == 4 and shape[3] in _CHANNELS:
        return shape[1:], (3, 1, 2)
    raise DataError(
        f"the array {name!r} is of shape {shape}; images have to be (N, H, W), (N, H, W, C) or "
        "(N, C, H, W), with one channel or three"
    )


def row_of_labels(name: str, array: np.ndarray) -> np.ndarray:
    """Labels as a row of int64 or of text.

    Raises:
        DataError: they are no labels.
    """
    import numpy as np

    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim == 2 and array.dtype.kind in "fiub":
        if not bool(((array == 0) | (array == 1)).all() and (array.sum(axis=1) == 1).all()):
            raise DataError(f"the labels {name!r} are rows of numbers, and not one-hot")
        array = array.argmax(axis=1)
    if array.ndim != 1:
        raise DataError(f"the labels {name!r} are of shape {array.shape}; give one per image")
    if array.dtype.kind in "US":
        return array.astype(str)
    if array.dtype.kind == "f" and bool((array == np.round(array)).all()):
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise DataError(f"the labels {name!r} are {array.dtype}, and not whole numbers or names")
    return array.astype(np.int64)


def _opened(path: Path, kind: str) -> Any:
    """A `.npz` file, or the array of a `.npy` file in which only what is asked for is read.

    Raises:
        DataError: it is of another kind, damaged, or a pickle.
    """
    import numpy as np

    found = what_is(path)
    if found and not found.startswith(f"it is {kind}"):
        if found.startswith(f"it is {_ARRAY}"):
            found = "it is one array: call it .npy, and give the folder that holds it"
        raise DataError(f"{str(path)!r} cannot be read as {kind}: {found}")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # a damaged file makes numpy and zipfile raise all sorts
        raise DataError(_unreadable(str(path), error)) from error


def _member(file: Any, name: str, path: Path) -> np.ndarray:
    try:
        array: np.ndarray = file[name]
    except Exception as error:
        raise DataError(_unreadable(f"{name!r} of {path.name}", error)) from error
    return array


def _unreadable(what: str, error: Exception) -> str:
    first = (str(error).splitlines() or [type(error).__name__])[0]
    if "Object arrays" in first or "Python objects" in first:
        return (
            f"{what} holds Python objects, which are never executed here: save plain arrays of "
            "numbers"
        )
    reason = "it does not begin as one" if "pickle" in first else first
    return f"{what} cannot be read as a NumPy array ({reason}); fetch or write it again"
