from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from bench.data import open_dataset
from bench.errors import DataError, InputNotice
from tests.data.conftest import Pixels, fill, png

if TYPE_CHECKING:
    from pathlib import Path


def test_folders_are_classes(tmp_path: Path, pixels: Pixels) -> None:
    """Classes and files are in the order of their names; what is no image is said to be left."""
    images = {"dog/2.png": pixels[0], "cat/b.png": pixels[1], "dog/1.PNG": pixels[2]}
    root = fill(tmp_path / "pets", {name: png(image) for name, image in images.items()})
    fill(root, {"cat/notes.txt": b"none", "dog/.hidden.png": b"none", "README.md": b"none"})
    dataset = open_dataset(f"folder:{root}")

    left = "pets: 3 files .* passed over: README.md, cat/notes.txt, dog/.hidden.png"
    with pytest.warns(InputNotice, match=left):
        examples = dataset.load("test")

    expected = pixels[[1, 2, 0]].transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(expected, examples.inputs.numpy())
    assert examples.labels.tolist() == [0, 1, 1]
    assert examples.class_names == ("cat", "dog")
    assert (dataset.name, dataset.family) == ("pets", None)


def test_train_and_test_share_classes(tmp_path: Path) -> None:
    """A class that one split lacks keeps its label in the other."""
    image = png(np.zeros((8, 8), dtype=np.uint8))
    root = fill(tmp_path, {"train/a/1.png": image, "train/b/1.png": image, "test/b/1.png": image})
    dataset = open_dataset(f"folder:{root}")

    said = "classes with images in train alone: a"
    with pytest.warns(InputNotice, match=said):
        assert dataset.load("train").labels.tolist() == [0, 1]
    with pytest.warns(InputNotice, match=said):
        assert dataset.load("test").labels.tolist() == [1]
    assert dataset.family == "digits"


def test_digest_follows_names_and_bytes(tmp_path: Path, pixels: Pixels) -> None:
    """The folder's own place does not matter; a renamed or changed file does."""
    one, two = png(pixels[0]), png(pixels[1])

    def digest(name: str, images: dict[str, bytes]) -> str:
        return open_dataset(f"folder:{fill(tmp_path / name, images)}").digest("test")

    base = digest("base", {"a/1.png": one, "b/1.png": two})

    assert base == digest("copy", {"a/1.png": one, "b/1.png": two})
    assert base != digest("renamed", {"a/2.png": one, "b/1.png": two})
    assert base != digest("changed", {"a/1.png": two, "b/1.png": two})


def test_faults_are_named_by_file(tmp_path: Path, pixels: Pixels) -> None:
    """An undecodable image and one of another size are called by their relative paths."""
    broken = fill(tmp_path / "broken", {"a/1.png": png(pixels[0]), "b/2.png": b"none"})
    mixed = fill(tmp_path / "mixed", {"a/1.png": png(pixels[0]), "b/2.png": png(pixels[0][:2])})

    with pytest.raises(DataError, match=r"^b/2.png is not an image that can be decoded"):
        open_dataset(f"folder:{broken}").load("test")
    with pytest.raises(DataError, match=r"^b/2.png is 3x2x4 but the ones before it are 3x5x4"):
        open_dataset(f"folder:{mixed}").load("test")


def test_missing_split_is_refused(tmp_path: Path, pixels: Pixels) -> None:
    """Without a train folder there is nothing to train on."""
    root = fill(tmp_path / "pets", {"cat/1.png": png(pixels[0])})

    with pytest.raises(DataError, match="pets has no train split: no folder"):
        open_dataset(f"folder:{root}").load("train")


def test_folder_without_images_is_refused(tmp_path: Path) -> None:
    """The error says what has to lie where."""
    with pytest.raises(DataError, match=r"no images in the folders of .*; put one folder per cla"):
        open_dataset(f"folder:{tmp_path}").load("test")
