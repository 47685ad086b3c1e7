"""scikit-learn's digits: 1,797 handwritten digits of 8×8 pixels, embedded and always there."""

from __future__ import annotations

from bench.api import Examples
from bench.data.base import Dataset, Split


class Digits(Dataset):
    """Optical Recognition of Handwritten Digits (Alpaydin and Kaynak, 1998; its test set).

    Every third example (index % 3 == 0) is in the test split, 599 of them; the other 1,198 are in
    the train split. Pixels are counts of 0 to 16, divided by 16.
    """

    name = "digits"
    family = "digits"

    def load(self, split: Split) -> Examples:
        """The examples of a split, in scikit-learn's order."""
        import numpy as np
        import torch
        from sklearn.datasets import load_digits

        source = load_digits()
        tested = np.arange(len(source.target)) % 3 == 0
        chosen = tested if split == "test" else ~tested
        inputs = torch.from_numpy(source.images[chosen] / 16).float()[:, None]
        labels = torch.from_numpy(source.target[chosen]).long()
        return Examples.of(inputs, labels, [str(digit) for digit in range(10)], self.name)
