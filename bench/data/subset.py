"""A fixed part of a set of examples: seeded, class-balanced, and nested in every larger part."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from bench.errors import DataError

if TYPE_CHECKING:
    from bench.api import Examples


def subset(examples: Examples, n: int | None, seed: int = 0) -> Examples:
    """The first `n` of one fixed order: the classes take turns, each in an order drawn by the seed.

    The first m of n examples are therefore the subset of size m. A class that has run out is
    passed over. The order comes from numpy's `RandomState`, whose stream never changes.

    Args:
        examples: what to choose from.
        n: how many; None keeps all examples as they are.
        seed: of the order, at least 0.

    Raises:
        DataError: `n` is less than 1 or more than there are, or the seed is no seed.
    """
    import numpy as np

    if n is None:
        return examples
    if not 1 <= n <= len(examples):
        raise DataError(
            f"n has to be between 1 and {len(examples)}, the examples there are in "
            f"{examples.name}; got {n}"
        )
    if not 0 <= seed < 2**32:
        raise DataError(f"the seed has to be between 0 and {2**32 - 1}; got {seed}")
    stream = np.random.RandomState(seed)
    labels = examples.labels.cpu().numpy()
    orders = [
        stream.permutation(np.flatnonzero(labels == label)).tolist()
        for label in range(examples.classes)
    ]
    turns = itertools.chain.from_iterable(itertools.zip_longest(*orders))
    return examples.take([index for index in turns if index is not None][:n])
