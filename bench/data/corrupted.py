"""Common corruptions of images, as files hold them and as a library makes them.

Fifteen kinds in five severities (Hendrycks and Dietterich, ICLR 2019); four more kinds are for
choosing settings by, and count in no mean.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from bench.api import Examples
from bench.data.arrays import ArraysDataset
from bench.data.downloads import TorchvisionDataset
from bench.data.numpy_files import row_of_labels
from bench.data.reading import Reading
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import numpy as np

    from bench.data.base import Split

#: The kinds that a mean is over, in the paper's order.
COMMON = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
#: The paper's further kinds.
FURTHER = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)
#: The distribution that makes them, and the smallest side that it takes.
LIBRARY, _SMALLEST = "imagecorruptions-imaug", 32

_CIFAR10 = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class CorruptedCifar10(ArraysDataset):
    """`cifar10-c:PATH[kind=fog,severity=3]`: one kind and severity of CIFAR-10-C's files.

    PATH holds `labels.npy` and an array for each kind, all images five times, by severity. Its
    training split is CIFAR-10's, by which weights are found.
    """

    scheme = "cifar10-c"
    options = ("kind", "severity", "classes")
    source: ClassVar[str] = "cifar10"
    """The data set that was corrupted."""
    known: ClassVar[tuple[str, ...] | None] = _CIFAR10
    """Its classes; None where the files' numbers are all there is."""

    def __init__(self, path: Path, reading: Reading | None = None) -> None:
        reading = reading or Reading()
        super().__init__(path, dataclasses.replace(reading, image=reading.kind, label="labels"))
        self.name = path.resolve().name + str(reading)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those there are, the common ones first."""
        return tuple(kind for kind in (*COMMON, *FURTHER) if kind in self._files.names)

    @property
    def family(self) -> str | None:
        """Of what was corrupted."""
        return self.source

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of what was corrupted."""
        return self._classes[0]

    def one(self, kind: str, severity: int) -> CorruptedCifar10:
        """The same files, another kind and severity."""
        reading = Reading(kind=kind, severity=severity, classes=self.reading.classes)
        return type(self)(self.path, reading)

    def load(self, split: Split) -> Examples:
        """All images of a kind and severity; of the training split CIFAR-10's own.

        Raises:
            DataError: the kind or the severity is not said, or there is none.
        """
        return self._source().load("train") if split == "train" else super().load(split)

    def digest(self, split: Split) -> str:
        """Of what `load` gives; the training split's as cheaply as its source allows."""
        return self._source().digest("train") if split == "train" else super().digest(split)

    def _source(self) -> TorchvisionDataset:
        return TorchvisionDataset(self.source, self.source.upper())

    @functools.cached_property
    def _found(self) -> tuple[Mapping[Split, tuple[str, str]], list[str]]:
        kind, severity = self.reading.image, self.reading.severity
        if "labels" not in self._files.names or not self.kinds:
            raise DataError(
                f"{str(self.path)!r} is not laid out as the files of {self.scheme} are: it has to "
                "hold labels.npy and fog.npy, snow.npy, …"
            )
        if not kind or not severity:
            raise DataError(
                f"{self.name} has {len(self.kinds)} kinds of corruptions in 5 severities: attack "
                f"one of them by {self.scheme}:PATH[kind={self.kinds[0]},severity=3]; accuracy on "
                "all of them is told by: python -m bench corruptions"
            )
        if kind not in self.kinds:
            raise DataError(f"{self.name} has no {kind}.npy; it has {', '.join(self.kinds)}")
        return {"test": (kind, "labels")}, []

    @functools.cached_property
    def _classes(self) -> tuple[tuple[str, ...], Mapping[str, int], tuple[str, ...]]:
        own = () if self.reading.classes else self.known
        return (own, {}, ()) if own else super()._classes

    def _array(self, name: str) -> np.ndarray:
        array, kind = super()._array(name), self.reading.image
        count, images = self._count, len(super()._array(kind))
        if images != len(SEVERITIES) * count:
            raise DataError(
                f"{kind}.npy holds {images} images; five severities of {count} each are "
                f"{len(SEVERITIES) * count}, as labels.npy says: fetch it again"
            )
        start = (self.reading.severity - 1) * count
        return array if len(array) == count else array[start : start + count]

    @functools.cached_property
    def _count(self) -> int:
        """The images of each severity: labels are theirs, or the same five times.

        Raises:
            DataError: of as many labels as images, those of a severity are not the first ones'.
        """
        import numpy as np

        labels = row_of_labels("labels", super()._array("labels"))
        kind, (count, rest) = self.reading.image, divmod(len(labels), len(SEVERITIES))
        images = len(super()._array(kind))
        if len(labels) * len(SEVERITIES) == images:
            return len(labels)
        if not count or rest or not np.array_equal(labels, np.tile(labels[:count], 5)):
            raise DataError(
                f"{kind}.npy of {self.name} holds {images} images, and labels.npy {len(labels)} "
                "labels, which are neither those of one severity nor these five times; either may "
                "be cut off or hold one severity: fetch them again"
            )
        return count


class CorruptedCifar100(CorruptedCifar10):
    """`cifar100-c:PATH[kind=…,severity=…]`: the same of CIFAR-100-C's files."""

    scheme = "cifar100-c"
    source = "cifar100"
    known = None


@dataclass(frozen=True)
class Corruptions:
    """The same images in several kinds and severities of corruption."""

    name: str
    """Of the data, as in tables."""
    made_by: str
    """Whence they are: files, or a library and its version."""
    kinds: tuple[str, ...]
    of: Callable[[str, int], Examples]
    """The images in a kind and severity, in one order."""
    clean: Examples | None = None
    """The images as they were; None where only corrupted ones are there."""


def stored(dataset: CorruptedCifar10, n: int, *, fewer: bool = False) -> Corruptions:
    """What files hold, n images of each kind and severity, the same ones of all.

    Args:
        dataset: of any kind and severity.
        n: how many.
        fewer: whether all there are will do where there are fewer.
    """
    if not dataset.kinds:
        dataset.load("test")  # which says what is missing
    return Corruptions(
        dataset.name,
        "files",
        dataset.kinds,
        lambda kind, severity: dataset.one(kind, severity).choose("test", n, fewer=fewer),
    )


def generated(examples: Examples, seed: int = 0) -> Corruptions:
    """What a library makes of images, with ImageNet-C's severities; not CIFAR-10-C's images.

    Args:
        examples: (N, C, H, W) in [0, 1]; rounded to 8 bits first, as the library takes them.
        seed: of their randomness; each image has its own in each kind and severity.

    Raises:
        DataError: the library is missing, or the images are smaller than it takes.
    """
    channels, height, width = examples.shape
    if min(height, width) < _SMALLEST or channels not in (1, 3):
        raise DataError(
            f"{examples.name} has images of {channels}x{height}x{width}; corruptions are made of "
            f"those of at least {_SMALLEST}x{_SMALLEST} with one channel or three"
        )
    try:
        import imagecorruptions
    except ImportError as error:
        raise DataError(
            f"corruptions are made by {LIBRARY}: pip install 'winnow-bench[corruptions]'; or give "
            "CIFAR-10-C's files: --dataset cifar10-c:PATH"
        ) from error
    from importlib.metadata import version

    return Corruptions(
        examples.name,
        f"{LIBRARY} {version(LIBRARY)}",
        tuple(imagecorruptions.get_corruption_names()),
        lambda kind, severity: _corrupted(examples, kind, severity, seed),
        examples,
    )


def _corrupted(examples: Examples, kind: str, severity: int, seed: int) -> Examples:
    import imagecorruptions
    import numpy as np
    import torch

    function = imagecorruptions.corruption_dict[kind]
    seeded = "seed" in inspect.signature(function).parameters
    images = (examples.inputs * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    made = np.empty(images.shape, dtype=np.uint8)
    before = np.random.get_state()  # noqa: NPY002 - what the library draws from
    try:
        for place, image in enumerate(images):
            own = [seed, COMMON.index(kind), severity, place]
            drawn = int(np.random.SeedSequence(own).generate_state(1)[0])
            np.random.seed(drawn)  # noqa: NPY002
            further = {"seed": drawn} if seeded else {}
            whole = imagecorruptions.corrupt(image, severity, kind, **further)
            gray = image.shape[2] == 1
            made[place] = whole.mean(axis=2, keepdims=True).round() if gray else whole
    finally:
        np.random.set_state(before)  # noqa: NPY002
    inputs = torch.from_numpy(made).permute(0, 3, 1, 2).float().div(255)
    name = f"{examples.name}[kind={kind},severity={severity}]"
    return Examples.of(inputs, examples.labels, examples.class_names, name)
