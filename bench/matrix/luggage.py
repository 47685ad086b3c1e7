"""What a worker on another machine needs: its bench, and every file that one names, by digest.

Nothing is taken for shared between machines. The bench is pickled, and of every path in it that is
a file here (weights, images in a file) the content travels; beside them go the plugins of the
working directory and the code that defenses name. There, all of it lies in one folder, which a
worker has for its working directory: what a plugin's path says relative to it is there as well.
"""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import registry
from bench.data.cache import Mapped
from bench.errors import StoreError, UsageError
from bench.models.checkpoints import record_path
from bench.models.weights import file_and_part
from bench.record.files import digest_of_file
from bench.registry.discovery import local_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.matrix.work import Bench


#: Where weights and images are in the folder of a worker.
FILES = "files/"


class Luggage(NamedTuple):
    """A bench on its way."""

    bench: bytes
    """Pickled; files in it are called by what they are in `contents`."""
    contents: dict[str, str]
    """What the folder of a worker holds: relative path to SHA-256."""
    files: dict[str, Path]
    """Where each of those is on this machine, by SHA-256."""


class Sent:
    """A bench that arrived: whoever gets it over a pipe gets the bench itself.

    So that the process that passes it on neither holds it nor loads what it is made of.

    Args:
        bench: as luggage has it.
        folder: that was filled with its contents.
    """

    def __init__(self, bench: bytes, folder: Path) -> None:
        self.bench, self.folder = bench, folder

    def __reduce__(self) -> tuple[Callable[..., Bench], tuple[bytes, Path]]:
        return unpacked, (self.bench, self.folder)


def packed(bench: Bench) -> Luggage:
    """A bench with all that it needs.

    Raises:
        UsageError: a file of a defense's code lies outside the working directory.
    """
    buffer = io.BytesIO()
    packer = _Packer(buffer)
    packer.dump(bench)
    for name in bench.contenders:
        for path in registry.defenses.create(name).files():
            packer.add(path, _relative(path, name))
    for package in ("bench.defenses", "bench.attacks"):
        for path, place in _local(package):
            packer.add(path, place)
    return Luggage(buffer.getvalue(), packer.contents, packer.files)


def unpacked(bench: bytes, folder: Path) -> Bench:
    """The bench of some luggage whose contents lie in a folder."""
    found: Bench = _Unpacker(bench, folder).load()
    return found


class _Packer(pickle.Pickler):
    """Notes every file that it meets."""

    def __init__(self, buffer: io.BytesIO) -> None:
        super().__init__(buffer)
        self.contents: dict[str, str] = {}
        self.files: dict[str, Path] = {}
        self._places: dict[Path, str] = {}

    def add(self, path: Path, place: str) -> None:
        """A file, and what it is called in the folder of a worker."""
        digest = digest_of_file(path)
        self.contents[place] = digest
        self.files[digest] = path.resolve()

    def persistent_id(self, item: Any) -> tuple[str, str, Any] | None:
        """What stands for a file's path, or for images in a file."""
        if isinstance(item, Mapped):
            return ("images", self._place(item.path), item.shape)
        if isinstance(item, Path):
            file, part = file_and_part(item)
            if file.is_file():
                return ("path", self._place(file), part)
        return None

    def _place(self, file: Path) -> str:
        """Where a file will be, and the record of a checkpoint beside it."""
        if file not in self._places:
            self._places[file] = f"{FILES}{len(self._places)}/{file.name}"
            self.add(file, self._places[file])
            record = record_path(file)
            if record.is_file():
                self.add(record, f"{PurePosixPath(self._places[file]).parent}/{record.name}")
        return self._places[file]


class _Unpacker(pickle.Unpickler):
    """Finds files where they are now."""

    def __init__(self, data: bytes, folder: Path) -> None:
        super().__init__(io.BytesIO(data))
        self.folder = folder

    def persistent_load(self, name: tuple[str, str, Any]) -> Any:
        """The path, or the images, that a name stands for."""
        kind, place, more = name
        path = self.folder / place
        if kind == "images":
            return Mapped.of(path, more)
        return path.with_name(f"{path.name}#{more}") if more else path


def _relative(path: Path, name: str) -> str:
    if path.is_absolute() or ".." in path.parts:
        raise UsageError(
            f"{name}: on other machines its code lies in the working directory, as it has to "
            f"here: go to its folder, and name it by a path below (got {path})"
        )
    return path.as_posix()


def _local(package: str) -> Iterator[tuple[Path, str]]:
    """The files beside which the plugins of the working directory lie."""
    folder = local_folder(package)
    for path in sorted(folder.rglob("*")) if folder else ():
        inside = path.relative_to(folder) if folder else path
        hidden = any(part.startswith((".", "__pycache__")) for part in inside.parts)
        if folder and path.is_file() and not hidden:
            yield path, f"{folder.name}/{inside.as_posix()}"


def unpack(
    contents: Mapping[str, str], folder: Path, cache: Path, bring: Callable[[str], bytes]
) -> None:
    """Fill the folder of a worker.

    Args:
        contents: what it holds, by SHA-256.
        folder: empty.
        cache: of the node, for all of its workers.
        bring: gives the content of what the cache has not.

    Raises:
        StoreError: what was brought is something else.
    """
    for place, digest in contents.items():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = _fetched(cache, digest, bring)
        if place.startswith(FILES):
            path.symlink_to(kept)
        else:  # code asks where it lies, to find what is beside it
            shutil.copyfile(kept, path)


def _fetched(cache: Path, digest: str, bring: Callable[[str], bytes]) -> Path:
    """A file of a node's cache, brought where it is not there yet or is not what it is called."""
    from filelock import FileLock

    cache.mkdir(parents=True, exist_ok=True)
    path = cache / digest
    with FileLock(cache / f"{digest}.lock"):
        if path.is_file() and digest_of_file(path) == digest:
            return path
        temporary = cache / f"{digest}.partial"
        temporary.write_bytes(bring(digest))
        if digest_of_file(temporary) != digest:
            raise StoreError(f"what was sent as {digest[:12]} is another file; run it again")
        temporary.replace(path)
    return path
