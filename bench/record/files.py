"""Files that are whole or absent: atomic writes, digests, canonical JSON, and a lock.

A file is written under a temporary name, flushed to the disk, and renamed: a reader, and a run
killed at any moment, sees the old file or the new one and never half of either.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

from filelock import lock_descriptor

from bench.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TEMPORARY = ".partial"

#: In a folder that a process works on, or was killed in.
LOCK = ".lock"


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
        StoreError: it cannot be read, or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise StoreError(f"{path} is not JSON: {error}") from error


def digest_of(value: Any) -> str:
    """SHA-256 of a value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partial(folder: Path) -> None:
    """Remove what a killed writer left half written."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; the system lets go of it however the process ends.

    Raises:
        StoreError: another process holds it, or it cannot be written or locked.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror or error}") from error
    with file:
        try:
            free = lock_descriptor(file.fileno(), blocking=False)
        except OSError as error:
            raise StoreError(f"cannot lock {folder}: {error.strerror or error}") from error
        if not free:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise StoreError(
                f"{folder} is in use by {holder}; wait for it, or stop it and run again"
            )
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}")
        file.flush()
        yield


def is_held(folder: Path) -> bool:
    """Whether a process holds a folder by `locked`."""
    try:
        with (folder / LOCK).open() as file:
            return not lock_descriptor(file.fileno(), blocking=False)
    except FileNotFoundError:
        return False
    except OSError:
        return True
