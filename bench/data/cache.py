"""Decoded images on the disk: made once, in one file for all processes, known by their digest.

A folder of the cache holds the images of one choice, called by a digest of what they were decoded
from: `images`, one after the other as they lie in memory, and `done.json`, which says how many of
them are done and what SHA-256 they have. What was begun is gone on with; what is not as it says is
made anew. The whole cache can be deleted whenever no run uses it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from filelock import FileLock

from bench.data.reading import expanded
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np

    from bench.data.base import OnProgress

IMAGES, DONE, LOCK = "images", "done.json", "lock"
#: Bytes between two notes of how far it is, and of a read.
STRIDE = 2**24


def cache_folder() -> Path:
    """Where downloads are kept: `$WINNOW_CACHE`, `$XDG_CACHE_HOME/winnow`, or `~/.cache/winnow`."""
    if chosen := os.environ.get("WINNOW_CACHE"):
        return expanded(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "winnow"


@dataclass(frozen=True)
class Mapped:
    """Images in a file, which every process that opens it shares."""

    path: Path
    shape: tuple[int, int, int, int]
    """(N, C, H, W), of uint8."""
    state: tuple[int, ...]
    """Of the file when its digest was compared: another file in its place is not opened."""

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return math.prod(self.shape)

    @classmethod
    def of(cls, path: Path, shape: tuple[int, int, int, int]) -> Self:
        """What lies in a file whose digest was just compared."""
        return cls(path, shape, _state(path))

    def open(self) -> np.ndarray:
        """The images, read where they are asked for; they cannot be written.

        Raises:
            DataError: the file is gone, or was changed since its digest was compared.
        """
        import numpy as np

        try:
            if _state(self.path) == self.state:
                return np.memmap(self.path, dtype=np.uint8, mode="r", shape=self.shape)
        except OSError:
            pass
        raise DataError(
            f"{self.path} was removed or changed while a run uses it; run the same command again"
        )


def mapped(
    source: str,
    shape: tuple[int, int, int, int],
    decoded: Callable[[int], Iterator[Any]],
    on_progress: OnProgress,
) -> Mapped:
    """The images of a source in one file of the cache, decoded as far as they are not there.

    Args:
        source: digest of all that the pixels follow from.
        shape: (N, C, H, W).
        decoded: gives the images from a number on, each uint8, (C, H, W) or (1, H, W).
        on_progress: is told how many of them are done.

    Raises:
        DataError: the disk is full, or the cache cannot be written.
    """
    folder = cache_folder() / "images" / source[:32]
    if _verified(folder, shape) == shape[0]:  # perhaps in a folder that others have filled
        return _found(folder, shape)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK):
            done = _verified(folder, shape)
            if done < shape[0]:
                _fill(folder, shape, done, decoded, on_progress)
    except OSError as error:
        gigabytes = math.prod(shape) / 1e9
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DataError(
            f"{'the disk is full' if full else error.strerror or error}: cannot keep {shape[0]} "
            f"decoded images ({gigabytes:.2g} GB) in {folder}; make room there, set WINNOW_CACHE "
            "to another folder, or take fewer by --n: what is there already is gone on with"
        ) from error
    return _found(folder, shape)


def _found(folder: Path, shape: tuple[int, int, int, int]) -> Mapped:
    return Mapped.of(folder / IMAGES, shape)


def _state(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _verified(folder: Path, shape: tuple[int, ...]) -> int:
    """How many images are there as `done.json` says; 0 where nothing can be used."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, RecursionError):
        note = json.loads((folder / DONE).read_bytes())
        done, wanted = int(note["done"]), tuple(note["shape"])
        with (folder / IMAGES).open("rb") as file:
            size = done * math.prod(shape[1:])
            enough = os.fstat(file.fileno()).st_size >= size
            if wanted == shape and 0 <= done <= shape[0] and enough:
                return done if _sha256(file, size).hexdigest() == note["sha256"] else 0
    return 0


def _sha256(file: BinaryIO, size: int) -> hashlib._Hash:
    """Of the first `size` bytes of a file."""
    digest = hashlib.sha256()
    while size > 0 and (data := file.read(min(size, STRIDE))):
        digest.update(data)
        size -= len(data)
    return digest


def _fill(
    folder: Path,
    shape: tuple[int, int, int, int],
    done: int,
    decoded: Callable[[int], Iterator[Any]],
    on_progress: OnProgress,
) -> None:
    """Append the images that are not there.

    Raises:
        OSError: they cannot be written.
    """
    import numpy as np

    path, each = folder / IMAGES, math.prod(shape[1:])
    if not done:  # another file: whoever has opened the one that is there keeps it
        path.unlink(missing_ok=True)
        path.touch()
    with path.open("r+b") as file:
        digest = _sha256(file, done * each)
        file.truncate(done * each)
        file.seek(done * each)
        on_progress(done, shape[0])
        for image in decoded(done):
            data = np.broadcast_to(image, shape[1:]).tobytes()  # gray ones among others
            file.write(data)
            digest.update(data)
            done += 1
            if done == shape[0] or done * each // STRIDE > (done - 1) * each // STRIDE:
                file.flush()
                os.fsync(file.fileno())
                _note(folder, {"done": done, "shape": shape, "sha256": digest.hexdigest()})
                on_progress(done, shape[0])


def _note(folder: Path, content: dict[str, Any]) -> None:
    """Write `done.json`, whole or not at all."""
    temporary = folder / f".{DONE}.partial"
    temporary.write_text(json.dumps(content), encoding="ascii")
    temporary.replace(folder / DONE)
