"""Encoded images: what they are, and their pixels."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import DataError

if TYPE_CHECKING:
    from bench.data.reading import Reading

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


def decode(image: EncodedImage, reading: Reading) -> Any:
    """The pixels of an image: a uint8 array (C, H, W), C = 1 for grayscale and otherwise 3.

    Raises:
        DataError: Pillow cannot decode it, it has more than 8 bits a channel, or it is smaller
            than what is to be cut from it.
    """
    import numpy as np
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image.data)) as opened:
            mode = opened.mode
            picture = opened.convert("L" if mode in _GRAYSCALE else "RGB")
    except Exception as error:  # a damaged file makes Pillow raise all sorts
        pointer = image.data.startswith(b"version https://git-lfs")
        hint = "; it is a pointer of Git LFS: run git lfs pull" if pointer else ""
        raise DataError(
            f"{image.where} is not an image that can be decoded ({type(error).__name__}); "
            f"it has to be a PNG, a JPEG or another format that Pillow reads{hint}"
        ) from error
    if mode in _DEEP:
        raise DataError(
            f"{image.where} has more than 8 bits a channel (Pillow's mode {mode}); "
            "convert the images to 8 bits"
        )
    pixels = np.asarray(_cut(_scaled(picture, reading.resize), reading.crop, image.where))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def decoder() -> str:
    """What pixels follow from besides the bytes of an image: the versions of what decodes it."""
    import PIL
    from PIL import features

    return f"Pillow {PIL.__version__}, libjpeg {features.version('jpg')}"


def _scaled(picture: Any, side: int) -> Any:
    """The shorter side as long as this, bilinear; as it is for 0."""
    from PIL import Image

    if not side or min(picture.size) == side:
        return picture
    shorter = min(picture.size)
    width, height = (side if each == shorter else side * each // shorter for each in picture.size)
    return picture.resize((width, height), Image.Resampling.BILINEAR)


def _cut(picture: Any, side: int, where: str) -> Any:
    """A square of this side from the middle; the whole for 0."""
    if not side:
        return picture
    width, height = picture.size
    if min(width, height) < side:
        raise DataError(
            f"{where} is {height}x{width}, too small to cut {side}x{side} from it; resize it "
            f"first, such as [resize={side},crop={side}]"
        )
    left, top = round((width - side) / 2), round((height - side) / 2)
    return picture.crop((left, top, left + side, top + side))


def in_colour(image: EncodedImage) -> bool:
    """Whether it has three channels, by its header alone."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image.data)) as opened:
            return opened.mode not in _GRAYSCALE and opened.mode not in _DEEP
    except Exception:  # noqa: BLE001 - decoding it says what is wrong
        return False
