"""`npz:PATH`: arrays in a file or a folder, read as what they are or refused in one line."""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from bench.data import open_dataset
from bench.errors import DataError, InputNotice, UnknownNameError
from tests.data.conftest import fill

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
        (
            {"x": np.zeros((0, 5, 4)), "y": np.arange(0)},
            r"no images, .* 'x' is of shape \(0, 5, 4\)",
        ),
        ({"x": np.zeros((6, 0, 4)), "y": np.arange(6)}, "pets holds no images"),
        ({"x": np.float32(1), "y": np.arange(1)}, r"'x' is of shape \(\); images have to be"),
        (
            {"x": np.full((6, 5, 4), 999, np.uint16), "y": np.arange(6)},
            "uint16 from 999 .* by 65535",
        ),
        (
            {"x": np.full((6, 5, 4), -9, np.int8), "y": np.arange(6)},
            "int8 from -9 .*: add 128 to t",
        ),
        ({"x": np.full((6, 5, 4), -9, np.int16), "y": np.arange(6)}, "int16 .*: add 32768 to them"),
        ({"x": np.full((6, 5, 4), 999), "y": np.arange(6)}, "999 to 999, .* by what white is$"),
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

    with pytest.raises(DataError, match="as a NumPy archive: it is a zip archive that is dam"):
        open_dataset(f"npz:{tmp_path / 'pets.npz'}").load("test")
    with pytest.raises(DataError, match=r"there is no file or folder .*a folder of \.npy files"):
        open_dataset(f"npz:{tmp_path / 'cats.npz'}")
    with pytest.raises(UnknownNameError, match="option of npz"):
        open_dataset(f"npz:{tmp_path / 'cats.npz'}[resize=3]")


def test_an_empty_array_has_no_family_either(tmp_path: Path) -> None:
    """It is asked for before anything is loaded."""
    dataset = open_dataset(saved(tmp_path, x=np.zeros((0, 5, 4)), y=np.arange(0)))

    with pytest.raises(DataError, match="pets holds no images"):
        _ = dataset.family
    with pytest.raises(DataError, match="pets holds no images"):
        dataset.choose("test", 3)


def test_an_archive_may_end_in_anything(tmp_path: Path, pixels: Pixels) -> None:
    """Capitals, or another ending; what else lies in it is passed over."""
    saved(tmp_path, x=pixels, y=np.arange(6))
    with zipfile.ZipFile(tmp_path / "pets.npz", "a") as archive:
        archive.writestr("read.me", b"")
    for name, called in (("pets.NPZ", "pets"), ("pets.npy", "pets.npy")):
        (tmp_path / name).write_bytes((tmp_path / "pets.npz").read_bytes())
        examples = open_dataset(f"npz:{tmp_path / name}").load("test")
        assert torch.equal(examples.inputs, expected(pixels))
        assert examples.name == called


def test_what_a_file_is_instead_is_said(tmp_path: Path) -> None:
    """Objects are spoken of where there are some."""
    np.save(tmp_path / "one.npy", np.zeros((6, 5, 4)))
    torch.save({}, tmp_path / "weights.npz")
    contents = {
        "one.npz": ((tmp_path / "one.npy").read_bytes(), "it is one array: call it .npy, and give"),
        "page.npz": (b"<!DOCTYPE html><html>", "it is a web page"),
        "lfs.npz": (b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
        "packed.npz": (b"\x1f\x8b\x08\0\0\0\0", "it is a gzip file: unpack it first"),
        "rows.npz": (b"PAR1....", "it is a Parquet file: give it as parquet:PATH"),
        "weights.npz": ((tmp_path / "weights.npz").read_bytes(), "it is a file of torch.save"),
        "pickle.npz": (pickle.dumps([]), "it is a pickle, which is never executed here"),
        "bytes.npz": (
            bytes(range(200, 250)),
            r"array \(it does not begin as one\); fetch or write",
        ),
        "empty.npz": (b"", "it is empty"),
    }
    for name, (data, message) in contents.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message) as caught:
            open_dataset(f"npz:{tmp_path / name}").load("test")
        assert "Python objects" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["deep/x.npy", "deep/y.npy"], r"no \.npy files: they lie in deep/: give npz:.*/few/deep$"),
        (["cat/1.png", "dog/1.png"], r"no \.npy files: it holds folders of images: .*folder:PATH"),
        (["a.npz"], r"no \.npy files: it holds NumPy archives: give one of them"),
        (["read.me"], r"no \.npy files: give a \.npz file, or a folder of \.npy files"),
    ],
)
def test_a_folder_without_arrays_is_refused(tmp_path: Path, files: list[str], message: str) -> None:
    """With what lies there instead."""
    root = fill(tmp_path / "few", dict.fromkeys(files, b"x"))

    with pytest.raises(DataError, match=message):
        open_dataset(f"npz:{root}").load("test")
