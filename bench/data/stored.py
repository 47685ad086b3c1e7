"""Data sets of encoded images in files: what folders and Parquet files have in common."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from bench.api import Examples
from bench.data import cache
from bench.data.base import FAMILY_OF_SHAPE, Dataset, Split, chosen
from bench.data.images import EncodedImage, decode, decoder, in_colour
from bench.data.mapped import MappedExamples, as_inputs
from bench.data.reading import Reading
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from bench.data.base import OnProgress

Shape = tuple[int, int, int]
#: Bytes of decoded images from which on they lie in a file rather than in each process.
MAPPED = 2**24


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
        called = path.resolve()
        plain = called.suffix.lower() in (".parquet", ".tar")
        self.name = (called.stem if plain else called.name) + str(self.reading)
        self._colour: dict[Split, bool] = {}

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """One per class, of both splits together."""

    @abstractmethod
    def labels(self, split: Split) -> Sequence[int]:
        """The label of every image of a split, in order; no image is read.

        Raises:
            DataError: there is no such split, not all of it, or an image without a label.
        """

    @abstractmethod
    def images(self, split: Split, rows: Sequence[int] | None = None) -> Iterator[EncodedImage]:
        """The images of a split, in order.

        Args:
            split: of the data set.
            rows: the places of those that are wanted, ascending; all where None.

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
        return FAMILY_OF_SHAPE.get(self._shape(split, 0)) if len(self.labels(split)) else None

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
        rows = range(len(self._checked_labels(split)))
        return self._read(split, rows, self._shape(split, 0))

    def choose(
        self,
        split: Split,
        n: int,
        *,
        fewer: bool = False,
        on_progress: OnProgress = lambda done, of: None,
    ) -> Examples:
        """`n` examples of a split by their labels; these alone are decoded.

        What would take `MAPPED` bytes and more is decoded once, into a file of the cache.

        Raises:
            DataError: as `load` says of those that are decoded, and of all labels.
        """
        labels = self._checked_labels(split)
        count = min(n, len(labels)) if fewer else n
        rows = chosen(labels, len(self.class_names), count, self.name)
        shape = self._shape(split, min(rows))
        if count * math.prod(shape) < MAPPED:
            return self._read(split, rows, shape)
        return self._mapped(split, rows, shape, on_progress)

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray:
        """Those alone are decoded."""
        every = chosen(self._checked_labels(split), len(self.class_names), n, self.name)
        rows = [every[place] for place in places]
        return self._inputs(split, rows, self._shape(split, min(every)))[0]

    def _read(self, split: Split, rows: Sequence[int], shape: Shape) -> Examples:
        """Some examples of a split, in this order, in memory."""
        import torch

        inputs, gray = self._inputs(split, rows, shape)
        self._say(split, gray, len(rows))
        labels = torch.from_numpy(self._checked_labels(split)[[*rows]])
        return Examples.of(torch.from_numpy(inputs), labels, self.class_names, self.name)

    def _inputs(self, split: Split, rows: Sequence[int], shape: Shape) -> tuple[np.ndarray, int]:
        """The inputs at some rows, in this order, and how many of them are gray among colour."""
        import numpy as np

        inputs, gray = np.empty((len(rows), *shape), dtype=np.float32), 0
        decoded = self._decoded(split, sorted(rows), shape)
        for place, pixels in zip(np.argsort(rows), decoded, strict=True):
            as_inputs(pixels, inputs[place])
            gray += len(pixels) < shape[0]
        return inputs, gray

    def _mapped(
        self, split: Split, rows: Sequence[int], shape: Shape, on_progress: OnProgress
    ) -> Examples:
        """Some examples of a split, in this order, in a file of the cache."""
        import numpy as np
        import torch

        ascending, gray = sorted(rows), 0
        source = self.begin_digest(f"images {shape} {decoder()}")
        for image in self.images(split, ascending):
            source.update(f"{len(image.data)}\n".encode())
            source.update(image.data)
            gray += not in_colour(image)
        mapped = cache.mapped(
            source.hexdigest(),
            (len(rows), *shape),
            lambda done: self._decoded(split, ascending[done:], shape),
            on_progress,
        )
        self._say(split, gray if shape[0] == 3 else 0, len(rows))
        places = torch.from_numpy(np.argsort(np.argsort(rows)))
        labels = torch.from_numpy(self._checked_labels(split)[[*rows]])
        return MappedExamples(mapped, places, labels, self.class_names, self.name)

    def _decoded(self, split: Split, rows: Sequence[int], shape: Shape) -> Iterator[np.ndarray]:
        """The pixels of some images, ascending, each uint8 of this shape or of one channel.

        Raises:
            DataError: one cannot be decoded, or is of another size.
        """
        for image in self.images(split, rows):
            pixels = decode(image, self.reading)
            if pixels.shape[1:] != shape[1:]:
                raise self._of_another_size(image, pixels.shape, shape)
            yield pixels

    def _say(self, split: Split, gray: int, of: int) -> None:
        """Note what was chosen or passed over, and how many images in colour are gray."""
        for sentence in self.said(split):
            self.note(sentence)
        if gray:
            self.note(f"{gray} of {of} images are gray and are read as colour, as the others are")

    def _checked_labels(self, split: Split) -> np.ndarray:
        """The label of every image of a split, int64.

        Raises:
            DataError: there are none, or one has no class.
        """
        import numpy as np

        labels, classes = np.array(self.labels(split), dtype=np.int64), len(self.class_names)
        if not len(labels):
            raise DataError(f"{self.name} holds no images; there is nothing to evaluate")
        for row in np.flatnonzero((labels < 0) | (labels >= classes))[:1].tolist():
            image = next(self.images(split, [row]))
            raise DataError(
                f"{image.where} has the label {labels[row]}; labels have to be in "
                f"0 … {classes - 1}, for there are {classes} classes"
            )
        return labels

    def _shape(self, split: Split, row: int) -> Shape:
        """(C, H, W) of an image; three channels where any image of the split is in colour."""
        channels, height, width = decode(next(self.images(split, [row])), self.reading).shape
        if channels == 1 and split not in self._colour:
            self._colour[split] = any(map(in_colour, self.images(split)))
        return 3 if channels == 3 or self._colour[split] else 1, height, width

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
