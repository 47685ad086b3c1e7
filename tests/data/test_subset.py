from __future__ import annotations

import pytest
import torch

from bench.api import Examples
from bench.data import open_dataset, subset
from bench.errors import DataError


@pytest.fixture
def uneven() -> Examples:
    """Three classes of 2, 5 and 3 examples; an input is its own index / 10."""
    inputs = torch.arange(10).reshape(10, 1, 1, 1) / 10
    return Examples.of(inputs, torch.tensor([0, 0, 1, 1, 1, 1, 1, 2, 2, 2]), "abc", "uneven")


def test_subset_is_class_balanced() -> None:
    """100 of the digits are ten of each class."""
    chosen = subset(open_dataset("digits").load("test"), 100)

    assert torch.bincount(chosen.labels).tolist() == [10] * 10


def test_subset_passes_over_exhausted_classes(uneven: Examples) -> None:
    """Classes take turns; where one has run out the others go on."""
    assert subset(uneven, 9).labels.tolist() == [0, 1, 2, 0, 1, 2, 1, 2, 1]


def test_smaller_subset_is_a_prefix() -> None:
    """Extending n only adds examples, so that outcomes stay valid."""
    examples = open_dataset("digits").load("test")

    for n in (1, 7, 50):
        torch.testing.assert_close(subset(examples, 100).inputs[:n], subset(examples, n).inputs)


def test_subset_of_everything_is_a_permutation(uneven: Examples) -> None:
    """Every example is chosen once."""
    chosen = subset(uneven, 10)

    assert uneven.inputs.flatten().tolist() == sorted(chosen.inputs.flatten().tolist())


def test_subset_is_fixed(uneven: Examples) -> None:
    """The order of seed 0 is the same on every machine and in every release."""
    order = (subset(uneven, 10).inputs.flatten() * 10).round().int().tolist()

    assert order == [1, 6, 9, 0, 4, 7, 3, 8, 5, 2]


def test_subset_depends_on_the_seed() -> None:
    """Another seed chooses other examples, the same seed the same."""
    examples = open_dataset("digits").load("test")

    assert subset(examples, 100, seed=1).digest == subset(examples, 100, seed=1).digest
    assert subset(examples, 100, seed=1).digest != subset(examples, 100, seed=2).digest


def test_none_keeps_all_examples(uneven: Examples) -> None:
    """Without n the examples stay as they are, in the order of the source."""
    assert subset(uneven, None) is uneven


@pytest.mark.parametrize("n", [0, -1, 11])
def test_impossible_n_is_refused(uneven: Examples, n: int) -> None:
    """The error says how many there are and what was asked for."""
    with pytest.raises(DataError, match=rf"between 1 and 10, .* in uneven; got {n}$"):
        subset(uneven, n)


def test_negative_seed_is_refused(uneven: Examples) -> None:
    """A seed that numpy does not take is the user's mistake."""
    with pytest.raises(DataError, match="seed has to be between 0 and 4294967295; got -1"):
        subset(uneven, 5, seed=-1)
