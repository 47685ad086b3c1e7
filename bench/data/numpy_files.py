"""NumPy's files: which arrays there are, and how they are images or labels."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from bench.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

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
            DataError: the file cannot be read.
        """
        if self.path.is_dir():
            return sorted(file.stem for file in self.path.glob("*.npy"))
        with _opened(self.path) as file:
            return sorted(file.files)

    def array(self, name: str) -> np.ndarray:
        """One array, read once.

        Raises:
            DataError: it holds objects, or cannot be read.
        """
        if name not in self._read:
            if self.path.is_dir():
                self._read[name] = _opened(self.path / f"{name}.npy")
            else:
                with _opened(self.path) as file:
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


def _opened(path: Path) -> Any:
    """A `.npz` file, or the array of a `.npy` file in which only what is asked for is read.

    Raises:
        DataError: it is neither, damaged, or a pickle.
    """
    import numpy as np

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
    pickled = "pickle" in str(error).lower()
    return f"{what} cannot be read as a NumPy array ({first})" + (
        "; it holds Python objects, which are never executed here: save plain arrays of numbers"
        if pickled
        else "; fetch or write it again"
    )
