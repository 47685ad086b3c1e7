"""Files that are whole or absent: atomic writes, digests, canonical JSON, and a lock.

A file is written under a temporary name, flushed to the disk, and renamed: a reader, and a run
killed at any moment, sees the old file or the new one and never half of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Self

from filelock import lock_descriptor

from bench.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

TEMPORARY = ".partial"

#: In a folder that a process works on, or was killed in.
LOCK = ".lock"
#: What to do about a damaged file of a run.
ANEW = "restore the file, or run the same command with --fresh to make it anew"


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically, creating its folder.

    Raises:
        StoreError: the disk is full, or the place cannot be written; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if error.errno == errno.ENOSPC:
            raise StoreError(
                f"the disk is full: cannot write {path}. What was stored before is safe; "
                "make room and run the same command again"
            ) from error
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error


def check_place(path: Path) -> None:
    """Look whether a file could be written, before what is to be in it is computed.

    Raises:
        StoreError: what should be a folder on the way to it is none, or must not be written.
    """
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise StoreError(f"cannot write {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"cannot write {path}: {folder} must not be written")


def canonical_json(value: Any) -> bytes:
    """The one way that a value is written as JSON: sorted keys, two spaces, a final newline."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def write_json(path: Path, value: Any) -> None:
    """Write a value as canonical JSON, atomically."""
    write_bytes(path, canonical_json(value))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        StoreError: it cannot be read, or is not JSON as Winnow writes it: NaN, infinity, and what
            is nested too deep to be read are none.
    """
    data = read_bytes(path)
    try:
        value = json.loads(data, parse_float=_finite, parse_constant=_finite)
        if b"\\u" in data:  # half a character, which no file and no terminal can hold
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise StoreError(f"{path} is not JSON of Winnow: it is nested too deep; {ANEW}") from None
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}; {ANEW}") from error


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def read_bytes(path: Path) -> bytes:
    """Read a plain file: no link is followed, and nothing is opened that could block or act.

    Raises:
        StoreError: it is missing, cannot be read, or is no plain file.
    """
    try:
        with open_plain(path) as file:
            return file.read()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error


def open_plain(path: Path) -> BinaryIO:
    """Open a plain file for reading.

    Raises:
        OSError: it is missing, or is a link, a folder, a pipe or a device.
    """
    # Without NONBLOCK, opening a pipe that was put in the file's place would wait for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is not a plain file")
    return os.fdopen(descriptor, "rb")


class Within(NamedTuple):
    """What a folder holds, all the way down, no link followed."""

    files: list[Path]
    folders: list[Path]
    others: list[Path]
    """Links, pipes, sockets and devices: Winnow writes none, and opens none."""

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Look through a folder; each list is sorted.

        Raises:
            StoreError: it cannot be read.
        """
        found = cls([], [], [])
        waiting = [folder]
        try:
            while waiting:
                with os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        path = Path(entry.path)
                        if entry.is_dir(follow_symlinks=False):
                            found.folders.append(path)
                            waiting.append(path)
                        elif entry.is_file(follow_symlinks=False):
                            found.files.append(path)
                        else:
                            found.others.append(path)
        except OSError as error:
            raise StoreError(f"cannot read {folder}: {error.strerror or error}") from error
        for paths in found:
            paths.sort()
        return found


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove what a killed writer left half written."""
    for path in Within.of(folder).files:
        if path.name.startswith(".") and path.name.endswith(TEMPORARY):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, *, patient: bool = False) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it however the process ends.

    Args:
        folder: made where it is not there.
        patient: whether to wait until another process lets go of it.

    Raises:
        StoreError: another process holds it, or it cannot be written or locked.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", opener=_through_no_link)  # noqa: SIM115 - closed below
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    with file:
        try:
            free = lock_descriptor(file.fileno(), blocking=patient)
        except OSError as error:
            raise StoreError(f"cannot lock {folder}: {error.strerror or error}") from error
        if not free:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise StoreError(
                f"{folder} is in use by {holder}; wait for it, or stop it and run again"
            )
        with contextlib.suppress(OSError):  # who holds it is for people; a full disk takes no name
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), f"process {os.getpid()}".encode())
        yield


def _through_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder by `locked`."""
    try:
        with open_plain(folder / LOCK) as file:
            return not lock_descriptor(file.fileno(), blocking=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
