"""The data sets that torchvision downloads, kept in a cache folder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.data.base import Dataset, subset
from bench.data.cache import cache_folder
from bench.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from bench.data.base import Split

#: The classes of handwritten digits.
DIGITS = tuple(str(digit) for digit in range(10))


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
        return self._examples(self._open(split))

    def pictures(self, split: Split, n: int, places: Sequence[int]) -> np.ndarray | None:
        """As of every data set, by torch; None where the cache folder does not have it."""
        opened = self._cached(split)
        if opened is None:
            return None
        return subset(self._examples(opened), n).inputs.numpy()[[*places]]

    def _examples(self, opened: Any) -> Examples:
        import torch

        inputs = torch.as_tensor(opened.data)
        if inputs.ndim == 3:  # (N, H, W)
            inputs = inputs[:, None]
        elif inputs.shape[-1] == 3:  # (N, H, W, C)
            inputs = inputs.permute(0, 3, 1, 2)
        labels = torch.as_tensor(opened.labels if self.kind == "SVHN" else opened.targets)
        names = DIGITS if self.kind in ("MNIST", "SVHN") else opened.classes
        return Examples.of(inputs.float().div_(255), labels, names, self.name)

    def _open(self, split: Split) -> Any:
        """The data set as torchvision reads it.

        Raises:
            DataError: it is neither in the cache folder nor can be downloaded into it.
        """
        opened = self._cached(split)
        if opened is not None:
            return opened
        root = cache_folder()
        try:
            root.mkdir(parents=True, exist_ok=True)
            return self._read(split, download=True)
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0].rstrip(":") or type(error).__name__
            raise DataError(
                f"{self.name} is not in {str(root)!r} (or is damaged there) and cannot be "
                f"downloaded ({reason}); connect to the network once, put the files that "
                f"torchvision.datasets.{self.kind} reads there, set WINNOW_CACHE to a folder that "
                "has them, or use parquet:PATH"
            ) from error

    def _cached(self, split: Split) -> Any:
        """The same, or None where the cache folder does not have it whole."""
        try:
            return self._read(split, download=False)
        except Exception:  # noqa: BLE001 - missing or damaged: torchvision raises all sorts
            return None

    def _read(self, split: Split, *, download: bool) -> Any:
        import torchvision

        part = {"split": split} if self.kind == "SVHN" else {"train": split == "train"}
        return getattr(torchvision.datasets, self.kind)(cache_folder(), download=download, **part)
