"""Encoded images into examples: decoded one by one, checked, and named when they are at fault."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: Pillow's modes that hold one channel of 8 bits or fewer (and perhaps transparency).
_GRAYSCALE = {"1", "L", "LA"}
#: Pillow's modes of more than 8 bits a channel, which it would clip rather than scale.
_DEEP = {"I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


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


def _size(shape: Sequence[int]) -> str:
    """(C, H, W) as people write it: channels × height × width."""
    return "x".join(map(str, shape))
