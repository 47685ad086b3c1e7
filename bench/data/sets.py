"""Names to data sets."""

from __future__ import annotations

from pathlib import Path

from bench.data.base import Dataset, Split
from bench.data.digits import Digits
from bench.data.downloads import TorchvisionDataset
from bench.data.folder import FolderDataset
from bench.data.parquet import ParquetDataset
from bench.errors import DataError, UnknownNameError

__all__ = ["DATASETS", "Dataset", "Split", "open_dataset"]

#: What `open_dataset` understands, and one line on each.
DATASETS: dict[str, str] = {
    "digits": "handwritten digits, 8x8 grayscale; embedded, needs no network",
    "mnist": "handwritten digits, 28x28 grayscale; downloaded",
    "fashion-mnist": "articles of clothing, 28x28 grayscale; downloaded",
    "cifar10": "objects and animals in 10 classes, 32x32 colour; downloaded",
    "cifar100": "objects and animals in 100 classes, 32x32 colour; downloaded",
    "svhn": "house numbers from street views, 32x32 colour; downloaded",
    "parquet:PATH": "Hugging Face's layout: a file, or a folder of train-* and test-* files",
    "folder:PATH": "one folder of images per class, in PATH/train and PATH/test or in PATH",
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
    dataset.source = text.strip()
    return dataset


def _open(text: str) -> Dataset:
    scheme, colon, argument = text.partition(":")
    if not colon and scheme == "digits":
        return Digits()
    if not colon and scheme in _TORCHVISION:
        return TorchvisionDataset(scheme, _TORCHVISION[scheme])
    if scheme not in _FROM_FILES:
        raise UnknownNameError("data set", text, DATASETS)
    if not argument:
        raise DataError(f"{scheme} needs a path: write {scheme}:PATH")
    return _FROM_FILES[scheme](Path(argument).expanduser())
