from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from bench.api import Examples
from bench.errors import DataError

NAMES = ("cat", "dog")


def make(**changes: Any) -> Examples:
    """Three valid examples, with some arguments changed."""
    inputs = torch.linspace(0, 1, 12).reshape(3, 1, 2, 2)
    valid = {"inputs": inputs, "labels": torch.tensor([0, 1, 0]), "class_names": NAMES, "name": "x"}
    return Examples.of(**{**valid, **changes})


def test_valid_examples_are_normalised() -> None:
    """Any float dtype, any whole-number dtype and any memory layout come out as one."""
    inputs = torch.rand(3, 2, 4, 4, dtype=torch.float64).to(memory_format=torch.channels_last)
    examples = make(inputs=inputs, labels=torch.tensor([1, 0, 1], dtype=torch.uint8))

    assert examples.inputs.dtype is torch.float32
    assert examples.labels.dtype is torch.int64
    assert examples.inputs.is_contiguous()
    torch.testing.assert_close(examples.inputs, inputs.float())
    assert (len(examples), examples.classes, examples.shape) == (3, 2, (2, 4, 4))


def test_arrays_are_taken_as_well() -> None:
    """What numpy holds need not be converted by the caller."""
    examples = make(inputs=np.zeros((3, 1, 2, 2)), labels=np.array([0, 1, 1]))

    assert examples.labels.tolist() == [0, 1, 1]


def test_rounding_at_the_border_is_clipped() -> None:
    """A normalisation undone in float32 lands a little outside the box; that is no fault."""
    inputs = torch.tensor([-5e-7, 0.5, 1.0, 1.0000005]).reshape(1, 1, 2, 2)

    examples = make(inputs=inputs, labels=[0])

    assert examples.inputs.flatten().tolist() == [0.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": torch.zeros(3, 4)}, r"\(N, C, H, W\); got shape \(3, 4\)"),
        ({"inputs": torch.zeros(0, 1, 2, 2), "labels": []}, "no examples"),
        (
            {"inputs": torch.zeros(3, 1, 2, 2, dtype=torch.uint8)},
            "floating point .* got torch.uint8 .divide 8-bit images by 255",
        ),
        ({"labels": [0, 1]}, r"shape \(3,\), one per input; got \(2,\)"),
        ({"labels": [[0], [1], [0]]}, r"shape \(3,\), one per input; got \(3, 1\)"),
        ({"labels": [0.0, 1.0, 0.0]}, "whole numbers; got torch.float32"),
        ({"labels": [True, False, True]}, "whole numbers; got torch.bool"),
        ({"labels": [0, 1, 2]}, "0 … 1 for 2 classes; got 0 to 2"),
        ({"labels": [0, -1, 1]}, "0 … 1 for 2 classes; got -1 to 1"),
        ({"inputs": torch.full((3, 1, 2, 2), math.nan)}, "NaN or infinity"),
        ({"inputs": torch.full((3, 1, 2, 2), math.inf)}, "NaN or infinity"),
        ({"inputs": torch.full((3, 1, 2, 2), 1.01)}, r"in \[0, 1\]; got 1.01 to 1.01"),
        ({"inputs": torch.full((3, 1, 2, 2), -2.0)}, r"in \[0, 1\]; got -2 to -2"),
    ],
)
def test_invalid_examples_are_refused(changes: dict[str, Any], message: str) -> None:
    """The error says what was got and what is wanted."""
    with pytest.raises(DataError, match=message):
        make(**changes)


def test_digest_is_of_what_is_evaluated() -> None:
    """Pixels, labels and the number of classes count; names of classes and of the set do not."""
    base = make().digest

    assert make(name="y", class_names=("a", "b")).digest == base
    assert make(labels=[0, 0, 0]).digest != base
    assert make(class_names=("cat", "dog", "eel")).digest != base
    assert make(inputs=make().inputs.flip(0)).digest != base
    assert make(inputs=make().inputs.reshape(3, 2, 1, 2)).digest != base


def test_take_keeps_the_order_asked_for() -> None:
    """Inputs and labels stay together."""
    examples = make().take([2, 1])

    assert torch.equal(examples.inputs, make().inputs[[2, 1]])
    assert examples.labels.tolist() == [0, 1]
    assert (examples.class_names, examples.name) == (NAMES, "x")


def test_examples_survive_pickling() -> None:
    """Worker processes get the same examples."""
    assert pickle.loads(pickle.dumps(make())).digest == make().digest
