"""Images in folders: one folder per class, its name the name of the class."""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

from bench.data.base import FAMILY_OF_SHAPE, Dataset, Split
from bench.data.images import EncodedImage, collect, decode
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bench.api import Examples

_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


class FolderDataset(Dataset):
    """`folder:PATH`: one folder per class in PATH/train and PATH/test, or in PATH itself.

    Without `train` and `test`, everything is the test split. Classes are sorted by name, and are
    those of both splits together. Files that are no images by their suffix, and hidden ones, are
    passed over. The set is called by the last part of PATH.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise DataError(
                f"there is no folder {str(path)!r}; give one that holds a folder of images per "
                "class, or such folders in train and test"
            )
        self.path = path
        self.name = path.resolve().name

    @functools.cached_property
    def family(self) -> str | None:
        """By the shape of the first image."""
        for split in self._roots:
            for image in self._images(split):
                return FAMILY_OF_SHAPE.get(decode(image).shape)
        return None

    def load(self, split: Split) -> Examples:
        """All examples of a split, sorted by class and file name."""
        count = len(self._files(split))
        names = self._class_names
        return collect(self._images(split), count=count, class_names=names, name=self.name)

    def digest(self, split: Split) -> str:
        """SHA-256 over the class names, the relative paths of the images, and their bytes."""
        digest = hashlib.sha256(f"folder {self._class_names!r}\n".encode())
        for image in self._images(split):
            digest.update(f"{image.where!r} {len(image.data)}\n".encode())
            digest.update(image.data)
        return digest.hexdigest()

    @functools.cached_property
    def _roots(self) -> dict[Split, Path]:
        """Each split that there is, the test split first, and the folder of its classes."""
        splits: tuple[Split, ...] = ("test", "train")
        found = {split: self.path / split for split in splits if (self.path / split).is_dir()}
        return found or {"test": self.path}

    @functools.cached_property
    def _class_names(self) -> tuple[str, ...]:
        return tuple(
            sorted(
                {
                    folder.name
                    for root in self._roots.values()
                    for folder in root.iterdir()
                    if folder.is_dir() and not folder.name.startswith(".")
                }
            )
        )

    def _files(self, split: Split) -> list[tuple[Path, int]]:
        """The image files of a split, each with its label."""
        if split not in self._roots:
            raise DataError(
                f"{self.name} has no {split} split: no folder {str(self.path / split)!r}; put one "
                "folder of images per class there"
            )
        root = self._roots[split]
        files = [
            (file, label)
            for label, name in enumerate(self._class_names)
            if (root / name).is_dir()
            for file in sorted((root / name).iterdir())
            if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
        ]
        if not files:
            raise DataError(
                f"no images in the folders of {str(root)!r}; put one folder per class there, with "
                f"files that end in {', '.join(sorted(_SUFFIXES))}"
            )
        return files

    def _images(self, split: Split) -> Iterator[EncodedImage]:
        for file, label in self._files(split):
            where = file.relative_to(self._roots[split]).as_posix()
            try:
                data = file.read_bytes()
            except OSError as error:
                raise DataError(f"{str(file)!r} cannot be read ({error.strerror})") from error
            yield EncodedImage(where, data, label)
