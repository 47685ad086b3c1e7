"""Encoded images into examples, decoded one by one and checked; and folders of images."""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.data.base import FAMILY_OF_SHAPE, Dataset, Split
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

#: Pillow's modes that hold one channel of 8 bits or fewer (and perhaps transparency).
_GRAYSCALE = {"1", "L", "LA"}

#: Pillow's modes of more than 8 bits a channel, which it would clip rather than scale.
_DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}

#: By which files of a folder are images.
_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)


@dataclass(frozen=True)
class EncodedImage:
    """One labelled image as it is stored."""

    where: str
    """What to call it in an error, such as `row 12 of test.parquet`."""
    data: bytes
    """The bytes of a PNG, a JPEG or any other format that Pillow reads."""
    label: int
    """At least 0."""


def decode(image: EncodedImage) -> Any:
    """The pixels of an image: a uint8 array (C, H, W), C = 1 for grayscale and otherwise 3.

    Raises:
        DataError: Pillow cannot decode it, or it has more than 8 bits a channel.
    """
    import io

    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image.data)) as opened:
            mode = opened.mode
            pixels = np.asarray(opened.convert("L" if mode in _GRAYSCALE else "RGB"))
    except Exception as error:  # a damaged file makes Pillow raise all sorts
        raise DataError(
            f"{image.where} is not an image that can be decoded ({type(error).__name__}); "
            "it has to be a PNG, a JPEG or another format that Pillow reads"
        ) from error
    if mode in _DEEP:
        raise DataError(
            f"{image.where} has more than 8 bits a channel (Pillow's mode {mode}); "
            "convert the images to 8 bits"
        )
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def collect(
    images: Iterable[EncodedImage], *, count: int, class_names: Sequence[str], name: str
) -> Examples:
    """Decode images into examples, one at a time, so that only the result is held in memory.

    Args:
        images: in order.
        count: how many there are.
        class_names: one per class.
        name: of the data set, as in tables.

    Raises:
        DataError: there are none, one cannot be decoded, is of another size than the first, or
            has a label without a class.
    """
    import numpy as np
    import torch

    inputs = np.empty((0, 0, 0, 0), dtype=np.float32)
    labels = np.empty(count, dtype=np.int64)
    for index, image in enumerate(images):
        pixels = decode(image)
        if index == 0:
            inputs = np.empty((count, *pixels.shape), dtype=np.float32)
        if pixels.shape != inputs.shape[1:]:
            raise DataError(
                f"{image.where} is {_size(pixels.shape)} but the ones before it are "
                f"{_size(inputs.shape[1:])}; all images have to share one size"
            )
        if not 0 <= image.label < len(class_names):
            raise DataError(
                f"{image.where} has the label {image.label}; labels have to be in "
                f"0 … {len(class_names) - 1}, for there are {len(class_names)} classes"
            )
        np.divide(pixels, np.float32(255), out=inputs[index], dtype=np.float32)
        labels[index] = image.label
    if count == 0:
        raise DataError(f"{name} holds no images; there is nothing to evaluate")
    return Examples.of(torch.from_numpy(inputs), torch.from_numpy(labels), class_names, name)


def family_of(images: Iterator[EncodedImage]) -> str | None:
    """The family of a data set, by the shape of its first image; None where there is none."""
    first = next(images, None)
    return None if first is None else FAMILY_OF_SHAPE.get(decode(first).shape)


def _size(shape: Sequence[int]) -> str:
    """(C, H, W) as people write it: channels × height × width."""
    return "x".join(map(str, shape))


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
        return family_of(self._images(next(iter(self._roots))))

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
