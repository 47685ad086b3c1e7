"""Where examples come from: embedded and downloaded sets, Parquet files, image folders.

`open_dataset` turns a name as written into a `Dataset`; nothing is read until it is asked for, and
torch, torchvision and pyarrow are imported only then.

Here are the digits, 1,797 of 8×8 pixels, which come with Winnow, and the data sets that torchvision
downloads, kept in a cache folder.
"""

from __future__ import annotations

import hashlib
import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.data.base import Dataset, Split, chosen, default_epsilons, headline, subset
from bench.data.cache import cache_folder
from bench.data.folders import FolderDataset
from bench.data.foreign import what_is
from bench.data.parquet import ParquetDataset
from bench.data.reading import read_options
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


_DIGITS = tuple(str(digit) for digit in range(10))


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
        return Examples.of(inputs, labels, _DIGITS, self.name)

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray:
        """From the embedded file."""
        inputs, labels = _digits(split)
        rows = chosen(labels, len(_DIGITS), n, self.name)
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


class TorchvisionDataset(Dataset):
    """A data set that torchvision knows, read from the cache folder or downloaded into it.

    The cache folder is a `root` of torchvision's: one that is filled already can be used.
    """

    def __init__(self, name: str, kind: str) -> None:
        self.name = name
        self.kind = kind
        """The name of the class in `torchvision.datasets`."""

    @property
    def family(self) -> str:
        """Its own name."""
        return self.name

    def load(self, split: Split) -> Examples:
        """All examples of a split, in torchvision's order."""
        import torch

        opened = self._open(split)
        inputs = torch.as_tensor(opened.data)
        if inputs.ndim == 3:  # (N, H, W)
            inputs = inputs[:, None]
        elif inputs.shape[-1] == 3:  # (N, H, W, C)
            inputs = inputs.permute(0, 3, 1, 2)
        labels = torch.as_tensor(opened.labels if self.kind == "SVHN" else opened.targets)
        names = _DIGITS if self.kind in ("MNIST", "SVHN") else opened.classes
        return Examples.of(inputs.float().div_(255), labels, names, self.name)

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray | None:
        """Only where torch is loaded already."""
        if "torch" not in sys.modules:
            return None
        return self.choose(split, n).inputs.numpy()[[*places]]

    def _open(self, split: Split) -> Any:
        """The data set as torchvision reads it.

        Raises:
            DataError: it is neither in the cache folder nor can be downloaded into it.
        """
        import torchvision

        kind = getattr(torchvision.datasets, self.kind)
        part: dict[str, Any] = (
            {"split": split} if self.kind == "SVHN" else {"train": split == "train"}
        )
        root = cache_folder()
        try:
            return kind(root, download=False, **part)
        except Exception:  # noqa: BLE001 - missing or damaged: torchvision raises all sorts
            pass
        try:
            root.mkdir(parents=True, exist_ok=True)
            return kind(root, download=True, **part)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0].rstrip(":") or type(error).__name__
            raise DataError(
                f"{self.name} is not in {str(root)!r} (or is damaged there) and cannot be "
                f"downloaded ({reason}); connect to the network once, put the files that "
                f"torchvision.datasets.{self.kind} reads there, set WINNOW_CACHE to a folder that "
                "has them, or use parquet:PATH"
            ) from error


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
}

_TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}

_FROM_FILES: dict[str, type[ParquetDataset] | type[FolderDataset]] = {
    "parquet": ParquetDataset,
    "folder": FolderDataset,
}


def open_dataset(text: str) -> Dataset:
    """The data set that a text names: `digits`, `mnist`, …, `parquet:PATH` or `folder:PATH`.

    Nothing is read yet, but a path is looked for.

    Raises:
        UnknownNameError: no such data set.
        DataError: there is nothing at PATH.
    """
    dataset = _open(text.strip())
    dataset.written = text.strip()
    return dataset


def _open(text: str) -> Dataset:
    scheme, colon, argument = text.partition(":")
    if not colon and scheme == "digits":
        return Digits()
    if not colon and scheme in _TORCHVISION:
        return TorchvisionDataset(scheme, _TORCHVISION[scheme])
    if scheme not in _FROM_FILES:
        for path in (Path(text).expanduser(), Path(argument).expanduser()):
            if path.name and (found := what_is(path)):
                raise DataError(
                    f"{text!r} is no name of a data set, but {str(path)!r} is there: {found}"
                )
        raise UnknownNameError("data set", text, DATASETS)
    if not argument:
        raise DataError(f"{scheme} needs a path: write {scheme}:PATH")
    kind = _FROM_FILES[scheme]
    return kind(*read_options(scheme, argument, kind.options))
