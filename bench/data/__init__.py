"""Where examples come from: embedded and downloaded sets, Parquet files, image folders.

`open_dataset` turns a name as written into a `Dataset`; nothing is read until it is asked for, and
torch, torchvision and pyarrow are imported only then.

Here are the digits, 1,797 of 8×8 pixels, which come with Winnow.
"""

from __future__ import annotations

import hashlib
import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import Examples
from bench.data.arrays import ArraysDataset
from bench.data.base import Dataset, Split, chosen, default_epsilons, headline, subset
from bench.data.cache import cache_folder
from bench.data.corrupted import CorruptedCifar10, CorruptedCifar100
from bench.data.downloads import DIGITS, TorchvisionDataset
from bench.data.folders import FolderDataset
from bench.data.foreign import what_is
from bench.data.parquet import ParquetDataset
from bench.data.reading import expanded, read_options
from bench.data.tars import WebDataset
from bench.errors import DataError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

__all__ = [
    "DATASETS",
    "Dataset",
    "Split",
    "cache_folder",
    "default_epsilons",
    "headline",
    "open_dataset",
    "subset",
]


#: The digits and SHA-256 of their file; README.md beside it says where they come from.
_DIGITS_FILE = Path(__file__).parent / "digits" / "digits.npz"
_DIGITS_SHA256 = "9a3dadbbc85e3d8ee794ad32578e4f8dc32cd528cfbf664c75dbdb9ef32800a0"


class Digits(Dataset):
    """Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998; its test set).

    Every third example (index % 3 == 0) is in the test split, 599 of them; the other 1,198 are in
    the train split. Pixels are counts of 0 to 16, divided by 16.
    """

    name = "digits"
    family = "digits"
    embedded = True

    def load(self, split: Split) -> Examples:
        """The examples of a split, in scikit-learn's order.

        Raises:
            DataError: the file of an installation is missing or damaged.
        """
        import torch

        inputs, labels = map(torch.from_numpy, _digits(split))
        return Examples.of(inputs, labels, DIGITS, self.name)

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray:
        """From the embedded file."""
        inputs, labels = _digits(split)
        rows = chosen(labels, len(DIGITS), n, self.name)
        return inputs[[rows[place] for place in places]]


def _digits(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Inputs float32 (N, 1, 8, 8) and labels int64 of a split."""
    import numpy as np

    with np.load(io.BytesIO(_digits_bytes())) as file:
        counts, targets = file["counts"], file["labels"]
    tested = np.arange(len(targets)) % 3 == 0
    rows = tested if split == "test" else ~tested
    return (counts[rows] / 16).astype(np.float32)[:, None], targets[rows].astype(np.int64)


def _digits_bytes() -> bytes:
    try:
        data = _DIGITS_FILE.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {_DIGITS_FILE}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != _DIGITS_SHA256:
        raise DataError(f"{_DIGITS_FILE} is not the file of this version; install Winnow again")
    return data


#: What `open_dataset` understands, and one line on each.
DATASETS: dict[str, str] = {
    "digits": "handwritten digits, 8x8 grayscale; embedded, needs no network",
    "mnist": "handwritten digits, 28x28 grayscale; downloaded",
    "fashion-mnist": "articles of clothing, 28x28 grayscale; downloaded",
    "cifar10": "objects and animals in 10 classes, 32x32 colour; downloaded",
    "cifar100": "objects and animals in 100 classes, 32x32 colour; downloaded",
    "svhn": "house numbers from street views, 32x32 colour; downloaded",
    "parquet:PATH": "Hugging Face's layout: a file, or a folder of train-* and test-* files; "
    "[image=COLUMN,label=COLUMN,classes=FILE,split=NAME,resize=SIDE,crop=SIDE,preset=imagenet]",
    "folder:PATH": "one folder of images per class, in PATH/train and PATH/test or in PATH; "
    "[classes=FILE,split=NAME,resize=SIDE,crop=SIDE,preset=imagenet,only=FILE]",
    "webdataset:PATH": "tar archives of images and labels (.cls): one, or a folder of them; "
    "[image=ENDING,label=ENDING,classes=FILE,split=NAME,resize=SIDE,crop=SIDE,preset=imagenet]",
    "npz:PATH": "NumPy arrays: a .npz file, or a folder of .npy files; "
    "[image=ARRAY,label=ARRAY,classes=FILE,split=NAME]",
    "cifar10-c:PATH": "CIFAR-10-C's folder of .npy files: `corruptions` reads all of it, `run` one "
    "part; [kind=fog,severity=3]",
    "cifar100-c:PATH": "CIFAR-100-C's, in the same way",
}

_TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}

_FROM_FILES: dict[
    str, type[ParquetDataset] | type[FolderDataset] | type[WebDataset] | type[ArraysDataset]
] = {
    "parquet": ParquetDataset,
    "folder": FolderDataset,
    "webdataset": WebDataset,
    "npz": ArraysDataset,
    "cifar10-c": CorruptedCifar10,
    "cifar100-c": CorruptedCifar100,
}


def open_dataset(text: str) -> Dataset:
    """The data set that a text names: `digits`, `mnist`, …, `parquet:PATH`, `folder:PATH`, ….

    Of names without a path, case and hyphens make no difference.

    Nothing is read yet, but a path is looked for.

    Raises:
        UnknownNameError: no such data set.
        DataError: there is nothing at PATH.
    """
    plain = {_letters(name): name for name in ("digits", *_TORCHVISION)}
    text = plain.get(_letters(text), text.strip())
    dataset = _open(text)
    dataset.written = text
    return dataset


def _letters(name: str) -> str:
    """A name without case, hyphens and blanks."""
    return re.sub(r"[-_\s]", "", name.lower())


def _open(text: str) -> Dataset:
    scheme, colon, argument = text.partition(":")
    if not colon and scheme == "digits":
        return Digits()
    if not colon and scheme in _TORCHVISION:
        return TorchvisionDataset(scheme, _TORCHVISION[scheme])
    if scheme not in _FROM_FILES:
        for path in (expanded(text), expanded(argument)):
            if path.name and (found := what_is(path)):
                raise DataError(
                    f"{text!r} is no name of a data set, but {str(path)!r} is there: {found}"
                )
        raise UnknownNameError("data set", text, DATASETS)
    if not argument:
        raise DataError(f"{scheme} needs a path: write {scheme}:PATH")
    kind = _FROM_FILES[scheme]
    return kind(*read_options(scheme, argument, kind.options))
