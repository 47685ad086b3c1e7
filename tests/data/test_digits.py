from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bench.data import Split, open_dataset


@pytest.mark.parametrize(("split", "size"), [("train", 1198), ("test", 599)])
def test_digits_are_float_images_in_the_box(split: Split, size: int) -> None:
    """Each split has its documented size, float32 8×8 inputs filling [0, 1], and ten classes."""
    examples = open_dataset("digits").load(split)

    assert (size, 1, 8, 8) == tuple(examples.inputs.shape)
    assert torch.float32 is examples.inputs.dtype
    assert torch.int64 is examples.labels.dtype
    assert (float(examples.inputs.min()), float(examples.inputs.max())) == (0.0, 1.0)
    assert tuple("0123456789") == examples.class_names
    assert list(range(10)) == sorted(set(examples.labels.tolist()))


def test_digits_test_split_is_every_third_example() -> None:
    """The split is by position in scikit-learn's order, and the pixels are its counts / 16."""
    source = load_digits()
    examples = open_dataset("digits").load("test")

    np.testing.assert_array_equal(source.images[::3] / 16, examples.inputs[:, 0].numpy())
    np.testing.assert_array_equal(source.target[::3], examples.labels.numpy())


def test_digits_splits_share_no_example() -> None:
    """No image is in both splits, and together they are the whole set."""
    train, test = (open_dataset("digits").load(split) for split in ("train", "test"))
    trained = {image.numpy().tobytes() for image in train.inputs}

    assert not [image for image in test.inputs if image.numpy().tobytes() in trained]
    assert len(load_digits().target) == len(train) + len(test)


@pytest.mark.parametrize(
    ("split", "digest"),
    [
        ("train", "ab3b2dfc3efe778a6ea88101b121090f41a57eceb13b48adffa6813223334d42"),
        ("test", "2147b60c006eca76dee961542dd017a5ee895c7265e7219b04d2ff3f28218a25"),
    ],
)
def test_digits_never_change(split: Split, digest: str) -> None:
    """Committed checkpoints and baselines hang on these digests."""
    assert digest == open_dataset("digits").digest(split)
    assert digest == open_dataset("digits").load(split).digest
