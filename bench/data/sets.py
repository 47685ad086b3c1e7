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

#: Name, class in torchvision.datasets, summary.
_DOWNLOADED = {
    "mnist": ("MNIST", "handwritten digits, 28×28 grayscale; downloaded by torchvision"),
    "fashion-mnist": ("FashionMNIST", "articles of clothing, 28×28 grayscale; downloaded"),
    "cifar10": ("CIFAR10", "objects and animals in 10 classes, 32×32 colour; downloaded"),
    "cifar100": ("CIFAR100", "objects and animals in 100 classes, 32×32 colour; downloaded"),
    "svhn": ("SVHN", "house numbers from street views, 32×32 colour; downloaded"),
}
_FROM_FILES: dict[str, type[ParquetDataset] | type[FolderDataset]] = {
    "parquet": ParquetDataset,
    "folder": FolderDataset,
}

#: What `open_dataset` understands, and one line on each.
DATASETS: dict[str, str] = {
    "digits": Digits.summary,
    **{name: summary for name, (_, summary) in _DOWNLOADED.items()},
    **{f"{scheme}:PATH": kind.summary for scheme, kind in _FROM_FILES.items()},
}


def open_dataset(text: str) -> Dataset:
    """The data set that a text names: `digits`, `mnist`, …, `parquet:PATH` or `folder:PATH`.

    Nothing is read yet, but a path is looked for.

    Raises:
        UnknownNameError: no such data set.
        DataError: there is nothing at PATH.
    """
    scheme, colon, argument = text.strip().partition(":")
    if not colon and scheme == "digits":
        return Digits()
    if not colon and scheme in _DOWNLOADED:
        return TorchvisionDataset(scheme, _DOWNLOADED[scheme][0])
    if scheme not in _FROM_FILES:
        raise UnknownNameError("data set", text.strip(), DATASETS)
    if not argument:
        raise DataError(f"{scheme} needs a path: write {scheme}:PATH")
    return _FROM_FILES[scheme](Path(argument).expanduser())
