"""The data sets that torchvision downloads, kept in a cache folder."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from bench.api import Examples
from bench.data.base import Dataset
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
        import torch

        opened = self._open(split)
        inputs = torch.as_tensor(opened.data)
        if inputs.ndim == 3:  # (N, H, W)
            inputs = inputs[:, None]
        elif inputs.shape[-1] == 3:  # (N, H, W, C)
            inputs = inputs.permute(0, 3, 1, 2)
        labels = torch.as_tensor(opened.labels if self.kind == "SVHN" else opened.targets)
        names = DIGITS if self.kind in ("MNIST", "SVHN") else opened.classes
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
