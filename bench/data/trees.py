"""What lies in folders: other folders, images, and what systems leave there."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Never

from bench.data.classes import folded
from bench.data.splits import called_train, is_leftover, role_of
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: By which files of a folder are images.
SUFFIXES = frozenset(
    f".{ending}"
    for ending in (
        *("avif", "bmp", "gif", "jfif", "jp2", "jpe", "jpeg", "jpg"),
        *("pbm", "pgm", "png", "ppm", "tif", "tiff", "webp"),
    )
)


def entries_of(root: Path) -> tuple[dict[str, Path], list[str]]:
    """The folders in a folder, by name in one spelling (Unicode's NFC), and what else lies there.

    Raises:
        DataError: two of them are one name but for its spelling, or it cannot be read; or one may
            be a link to nothing.
    """
    folders: dict[str, Path] = {}
    spelled: dict[str, Path] = {}
    others = []
    try:
        entries = sorted(root.iterdir())
    except OSError as error:
        raise _unreadable(error) from error
    for entry in entries:
        name = unicodedata.normalize("NFC", entry.name)
        if entry.is_symlink() and not entry.exists() and not (is_leftover(name) or is_image(name)):
            raise DataError(
                f"{str(entry)!r} is a link to nothing, perhaps to a folder of images: mend or "
                "remove it"
            )
        if is_leftover(name) or not entry.is_dir():
            others.append(entry.name)
        elif not name.isprintable():
            raise DataError(
                f"the folder {entry.name!r} has a name that no table can show; rename it"
            )
        elif other := spelled.get(folded(name)):
            raise DataError(
                f"{str(root)!r} has the folders {other.name!r} and {entry.name!r}, which "
                "differ in spelling alone; put their images together, or rename one"
            )
        else:
            folders[name] = spelled[folded(name)] = entry
    return folders, others


def branches(
    folder: Path, reached: dict[tuple[int, int], str] | None = None
) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder from this one down, links followed: its files, and leftovers' folders.

    Args:
        folder: to begin with.
        reached: the folders that count already, to which these are added.

    Raises:
        DataError: one cannot be read, or is reached twice.
    """
    reached = {} if reached is None else reached
    for root, below, files in os.walk(folder, followlinks=True, onerror=_refuse):
        status = Path(root).stat()
        if other := reached.get((status.st_dev, status.st_ino)):
            raise DataError(
                f"links lead to the folder {other!r} twice, also as {root!r}: its images would "
                "count more than once; remove the link"
            )
        reached[status.st_dev, status.st_ino] = root
        leftovers = [name for name in below if is_leftover(name)]
        below[:] = [name for name in below if not is_leftover(name)]
        yield Path(root), files, leftovers


def _refuse(error: OSError) -> Never:
    raise _unreadable(error) from error


def _unreadable(error: OSError) -> DataError:
    return DataError(f"{str(error.filename)!r} cannot be read ({error.strerror})")


def is_image(name: str) -> bool:
    """Whether a file of this name is an image."""
    return not is_leftover(name) and Path(name).suffix.lower() in SUFFIXES


def has_images(folder: Path) -> bool:
    """Whether there is an image in a folder, however deep.

    Raises:
        DataError: as `branches`.
    """
    if _has_own_images(folder):  # one is enough, and there may be many
        return True
    return any(map(is_image, (name for _, names, _ in branches(folder) for name in names)))


def _has_own_images(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return any(is_image(entry.name) for entry in entries)
    except OSError as error:
        raise _unreadable(error) from error


def holds_classes(folder: Path) -> bool:
    """Whether some folder in a folder has images."""
    return any(map(has_images, entries_of(folder)[0].values()))


def without_wrapper(path: Path) -> tuple[Path, list[str]]:
    """The one folder in a folder, where the splits lie in that, as archives and clones have it."""
    folders = entries_of(path)[0]
    if len(folders) != 1:
        return path, []
    ((name, below),) = folders.items()
    splits = (folder for part, folder in entries_of(below)[0].items() if role_of(part))
    if role_of(name) or not any(map(holds_classes, splits)):
        return path, []
    return below, [f"its splits lie in {name}/"]


def like_splits(root: Path) -> tuple[dict[str, Path], list[str]]:
    """Folders in a folder that hold the same folders, two or more, and no images of their own.

    They are all that there are, or one of them is called after a training split. A folder alone in
    one of them is gone into, as archives have it.

    Returns:
        By their names where these same folders lie, and the names of these; nothing where there
        are none.
    """
    folders = entries_of(root)[0]
    alike: dict[tuple[str, ...], dict[str, Path]] = {}
    for name, place in folders.items():
        for _ in range(2):
            below = {} if _has_own_images(place) else entries_of(place)[0]
            place = next(iter(below.values())) if len(below) == 1 else place
        if len(below) > 1:
            alike.setdefault(tuple(sorted(below)), {})[name] = place
    for names, group in alike.items():
        if len(group) > 1 and (len(group) == len(folders) or any(map(called_train, group))):
            return group, [*names]
    return {}, []


def tables(folder: Path) -> list[str]:
    """The names of files in a folder that may say what its images show."""
    endings = (".csv", ".tsv", ".jsonl", ".txt")
    return [name for name in entries_of(folder)[1] if name.lower().endswith(endings)]
