"""Data sets of encoded images in files: what folders and Parquet files have in common."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from bench.api import Examples
from bench.data.base import FAMILY_OF_SHAPE, Dataset, Split
from bench.data.images import EncodedImage, decode, in_colour
from bench.data.reading import Reading
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class StoredDataset(Dataset):
    """Encoded images with labels in files, decoded one by one and checked.

    The set is called by the last part of PATH, with the options that were given.
    """

    scheme: ClassVar[str]
    options: ClassVar[tuple[str, ...]]
    """The keys that may stand in brackets behind PATH."""

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        self.path = path
        self.reading = reading or Reading()
        self.name = path.resolve().name.removesuffix(".parquet") + str(self.reading)

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """One per class, of both splits together."""

    @abstractmethod
    def count(self, split: Split) -> int:
        """The number of images of a split.

        Raises:
            DataError: there is no such split, or not all of it.
        """

    @abstractmethod
    def images(self, split: Split) -> Iterator[EncodedImage]:
        """The images of a split, in order.

        Raises:
            DataError: there is no such split, or one of them cannot be read.
        """

    @abstractmethod
    def said(self, split: Split) -> Sequence[str]:
        """A sentence on whatever was chosen or passed over to read a split."""

    @property
    def family(self) -> str | None:
        """By the shape of its images; in colour where one of them is."""
        split: Split = "test" if self.has("test") else "train"
        first = next(self.images(split), None)
        if first is None:
            return None
        channels, *sides = decode(first, self.reading).shape
        gray, colour = (FAMILY_OF_SHAPE.get((count, *sides)) for count in (1, 3))
        if channels == 1 and (gray or colour) and any(map(in_colour, self.images(split))):
            return colour
        return gray if channels == 1 else colour

    @abstractmethod
    def has(self, split: Split) -> bool:
        """Whether there is such a split."""

    def load(self, split: Split) -> Examples:
        """All examples of a split, decoded one at a time: only the result is held in memory.

        Gray images among others in colour get three equal channels.

        Raises:
            DataError: no images, one that cannot be decoded or is of another size than those
                before it, or a label without a class.
        """
        import numpy as np
        import torch

        count, names = self.count(split), self.class_names
        inputs = np.empty((0, 0, 0, 0), dtype=np.float32)
        labels = np.empty(count, dtype=np.int64)
        gray = 0
        for index, image in enumerate(self.images(split)):
            pixels = decode(image, self.reading)
            if index == 0:
                inputs = np.empty((count, *pixels.shape), dtype=np.float32)
            if pixels.shape[1:] != inputs.shape[2:]:
                raise self._of_another_size(image, pixels.shape, inputs.shape[1:])
            if not 0 <= image.label < len(names):
                raise DataError(
                    f"{image.where} has the label {image.label}; labels have to be in "
                    f"0 … {len(names) - 1}, for there are {len(names)} classes"
                )
            if len(pixels) > inputs.shape[1]:
                inputs = np.repeat(inputs, 3, axis=1)
            gray += len(pixels) == 1
            np.divide(pixels, np.float32(255), out=inputs[index], dtype=np.float32)
            labels[index] = image.label
        if count == 0:
            raise DataError(f"{self.name} holds no images; there is nothing to evaluate")
        for sentence in self.said(split):
            self.note(sentence)
        if gray and inputs.shape[1] == 3:
            self.note(
                f"{gray} of {count} images are gray and are read as colour, as the others are"
            )
        return Examples.of(torch.from_numpy(inputs), torch.from_numpy(labels), names, self.name)

    def _of_another_size(
        self, image: EncodedImage, got: Sequence[int], before: Sequence[int]
    ) -> DataError:
        sizes = ["x".join(map(str, shape)) for shape in (got, before)]
        side = min(*got[1:], *before[1:])
        return DataError(
            f"{image.where} is {sizes[0]} but the ones before it are {sizes[1]}; all images have "
            f"to share one size: bring them to the model's, such as by "
            f"{self.scheme}:PATH[resize={side},crop={side}]"
        )

    def begin_digest(self, text: str) -> hashlib._Hash:
        """A SHA-256 that has seen a text, and whatever option changes pixels."""
        return hashlib.sha256(f"{text}{self.reading.geometry}\n".encode())
