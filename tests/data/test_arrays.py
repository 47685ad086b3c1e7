"""`npz:PATH`: arrays in a file or a folder, read as what they are or refused in one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from bench.data import open_dataset
from bench.errors import DataError, InputNotice, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from tests.data.conftest import Pixels


def saved(root: Path, **arrays: Any) -> str:
    """A data set's name: arrays in `pets.npz`."""
    np.savez(root / "pets.npz", **arrays)
    return f"npz:{root / 'pets.npz'}"


def expected(pixels: Pixels) -> torch.Tensor:
    """Colour images (N, H, W, 3) of 8 bits as inputs, by torch alone."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


NAMES = [("x", "y"), ("images", "labels"), ("x_test", "y_test"), ("test_images", "test_labels")]


@pytest.mark.parametrize(("image", "label"), NAMES)
@pytest.mark.parametrize("kind", ["bytes", "NCHW", "float", "whole floats"])
def test_images_are_read_in_whatever_form(
    tmp_path: Path, pixels: Pixels, image: str, label: str, kind: str
) -> None:
    """Channels first or last, 8 bits or [0, 1], under the usual names."""
    labels = np.array([0, 1, 2, 0, 1, 2])
    stored = {
        "bytes": pixels,
        "NCHW": pixels.transpose(0, 3, 1, 2),
        "float": pixels.astype(np.float32) / 255,
        "whole floats": pixels.astype(np.float64),
    }[kind]
    dataset = open_dataset(saved(tmp_path, **{image: stored, label: labels}))

    if kind == "whole floats":
        with pytest.warns(InputNotice, match="whole numbers up to 255: divided by 255"):
            examples = dataset.load("test")
    else:
        examples = dataset.load("test")
    assert torch.equal(examples.inputs, expected(pixels))
    assert examples.labels.tolist() == labels.tolist()
    pictures = dataset.pictures("test", 6, [5, 0])
    assert pictures is not None
    assert np.array_equal(pictures, dataset.choose("test", 6).inputs[[5, 0]])
    assert examples.class_names == ("0", "1", "2")
    assert examples.name == "pets"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array([[2], [0], [1]], dtype=np.uint8), ("0", "1", "2")),
        (np.eye(3)[[2, 0, 1]], ("0", "1", "2")),
        (np.array([2.0, 0.0, 1.0]), ("0", "1", "2")),
        (np.array(["owl", "ant", "bee"]), ("ant", "bee", "owl")),
        (np.array([b"owl", b"ant", b"bee"]), ("ant", "bee", "owl")),
    ],
)
@pytest.mark.filterwarnings("ignore::bench.errors.InputNotice")
def test_labels_are_read_in_whatever_form(
    tmp_path: Path, pixels: Pixels, labels: np.ndarray, classes: tuple[str, ...]
) -> None:
    """Columns, one-hot rows, whole floats and names, as they are in MedMNIST and Keras."""
    examples = open_dataset(saved(tmp_path, x=pixels[:3], y=labels)).load("test")

    assert examples.labels.tolist() == [2, 0, 1]
    assert examples.class_names == classes


def test_splits_are_those_of_the_names(tmp_path: Path, pixels: Pixels) -> None:
    """MedMNIST has three; the validation split is named, or stands in for a missing test split."""
    arrays = {
        f"{part}_{what}": part_of
        for part, rows in (("train", [0, 1]), ("val", [2, 3]), ("test", [4, 5]))
        for what, part_of in (("images", pixels[rows, :, :, 0]), ("labels", np.array([[0], [1]])))
    }
    name = saved(tmp_path, **arrays)

    with pytest.warns(InputNotice, match="not read: val"):
        test = open_dataset(name).load("test")
    assert torch.equal(test.inputs * 255, torch.from_numpy(pixels[4:, None, :, :, 0]).float())
    with pytest.warns(InputNotice, match="not read: test"):
        named = open_dataset(f"{name}[split=val]").load("test")
    without = saved(tmp_path, **{n: a for n, a in arrays.items() if not n.startswith("test")})
    with pytest.warns(InputNotice, match="no test split; val is taken for it"):
        assert open_dataset(without).load("test").digest == named.digest


def test_a_folder_of_arrays_is_read_by_what_is_asked_for(tmp_path: Path, pixels: Pixels) -> None:
    """As CIFAR-10-C's is: `labels.npy` and one file a corruption, which is named."""
    for name, array in (("fog", pixels), ("snow", 255 - pixels), ("labels", np.arange(6) % 3)):
        np.save(tmp_path / f"{name}.npy", array)
    name = f"npz:{tmp_path}"

    with pytest.raises(DataError, match=r"no arrays of images .*fog, labels, snow.*image=NAME"):
        open_dataset(name).load("test")
    examples = open_dataset(f"{name}[image=snow]").choose("test", 3)
    assert examples.labels.tolist() == [0, 1, 2]
    whole = open_dataset(f"{name}[image=snow]").load("test")
    assert torch.equal(whole.inputs, expected(255 - pixels))
    assert all((whole.inputs == each).flatten(1).all(1).any() for each in examples.inputs)


def test_arrays_without_names_are_told_apart_by_their_axes(tmp_path: Path, pixels: Pixels) -> None:
    """As `np.savez(file, x, y)` calls them, and it is said."""
    name = saved(tmp_path, arr_1=pixels, arr_0=np.arange(6))

    with pytest.warns(InputNotice, match=r"read as images .arr_1. and labels .arr_0.$"):
        assert torch.equal(open_dataset(name).load("test").inputs, expected(pixels))


def test_class_names_come_from_a_file_or_from_an_array(tmp_path: Path, pixels: Pixels) -> None:
    """Labels are places in either."""
    (tmp_path / "all.txt").write_text("ant\nbee\ncat\ndog\n")
    labels = np.array([0, 1, 2, 0, 1, 2])
    name = saved(tmp_path, x=pixels, y=labels, class_names=np.array(["a", "b", "c"]))

    assert open_dataset(name).load("test").class_names == ("a", "b", "c")
    given = open_dataset(f"{name}[classes={tmp_path / 'all.txt'}]").load("test")
    assert given.class_names == ("ant", "bee", "cat", "dog")


@pytest.mark.parametrize("kind", ["file", "array"])
def test_text_labels_are_places_among_the_names_that_are_given(
    tmp_path: Path, pixels: Pixels, kind: str
) -> None:
    """As of Parquet files and archives, synonyms too; a name that is not among them is refused."""
    names = ["owl", "bee", "ant"]
    (tmp_path / "all.txt").write_text("owl, strix\nbee\nant\n")
    more = {"class_names": np.array(names)} if kind == "array" else {}
    options = f"[classes={tmp_path / 'all.txt'}]" if kind == "file" else ""
    labels = np.array(["ant", "bee", "strix" if kind == "file" else "owl"])

    examples = open_dataset(saved(tmp_path, x=pixels[:3], y=labels, **more) + options).load("test")
    assert examples.labels.tolist() == [2, 1, 0]
    assert examples.classes == 3
    strange = saved(tmp_path, x=pixels[:2], y=np.array(["ant", "cat"]), **more) + options
    with pytest.raises(DataError, match=r"1 of 2 classes that are not among those of .*: cat;"):
        open_dataset(strange).load("test")


OBJECTS = np.array([{"a": 1}] * 6, dtype=object)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((6, 5, 4, 3), np.uint8)}, "no arrays of images and labels .*only x"),
        ({"x": np.zeros((6, 40), np.uint8), "y": np.arange(6)}, r"shape \(6, 40\); images have"),
        ({"x": np.zeros((6, 5, 4, 2)), "y": np.arange(6)}, r"shape .* one channel or three"),
        ({"x": np.eye(5, dtype=np.uint8)[None], "y": [0]}, "0 and 1 in 8 bits, where white is 255"),
        ({"x": np.zeros((6, 5, 4)), "y": np.arange(5)}, "has 6 images and 5 labels"),
        ({"x": np.zeros((6, 5, 4)), "y": np.arange(6) - 1}, "labels from -1 to 4"),
        ({"x": np.zeros((6, 5, 4)), "y": np.arange(6) + 0.5}, "and not whole numbers or names"),
        ({"x": np.zeros((6, 5, 4)), "y": np.full((6, 2), 0.5)}, "and not one-hot"),
        ({"x": np.zeros((6, 5, 4)), "y": OBJECTS}, "Python objects, which are never executed"),
        ({"x": np.full((6, 5, 4), 3.5), "y": np.arange(6)}, r"inputs have to be in \[0, 1\]"),
        ({"x": np.zeros((6, 5, 4)), "data": np.zeros((6, 5, 4)), "y": OBJECTS}, "several arrays"),
        ({"a": np.zeros((6, 5)), "b": np.arange(6)}, "no arrays of images and labels"),
        ({"x_test": np.zeros((6, 5, 4)), "y_train": np.arange(6)}, "their names, only x_test, y_t"),
        ({"testX": np.zeros((6, 5, 4)), "trainY": np.arange(6)}, "their names, only testX, trainY"),
        ({"x_train": np.zeros((6, 5, 4)), "y_train": np.arange(6)}, "no test split.*call them x_"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    """With what there is and what to do."""
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(saved(tmp_path, **arrays)).load("test")
    assert "\n" not in str(caught.value)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    """A missing or damaged file, and an option of other schemes."""
    (tmp_path / "pets.npz").write_bytes(b"PK\x03\x04 cut off")

    with pytest.raises(DataError, match="cannot be read as a NumPy array"):
        open_dataset(f"npz:{tmp_path / 'pets.npz'}").load("test")
    with pytest.raises(DataError, match=r"there is no file or folder .*a folder of \.npy files"):
        open_dataset(f"npz:{tmp_path / 'cats.npz'}")
    with pytest.raises(UnknownNameError, match="option of npz"):
        open_dataset(f"npz:{tmp_path / 'cats.npz'}[resize=3]")
