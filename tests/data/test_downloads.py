from __future__ import annotations

import struct
import urllib.error
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pytest
import scipy.io
import torchvision.datasets.utils

from bench.data import cache_folder, open_dataset
from bench.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder, and no network."""

    def unreachable(*_: Any, **__: Any) -> NoReturn:
        raise urllib.error.URLError("Name or service not known")

    for function in ("_get_redirect_url", "_urlretrieve"):
        monkeypatch.setattr(torchvision.datasets.utils, function, unreachable)
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def idx(array: np.ndarray[Any, Any]) -> bytes:
    """An array of uint8 in MNIST's file format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.mark.parametrize(
    ("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")]
)
def test_cached_set_needs_no_network(cache: Path, name: str, folder: str) -> None:
    """Files of torchvision's layout in the cache are read, each split from its own."""
    stream = np.random.RandomState(0)
    raw = cache / folder / "raw"
    raw.mkdir(parents=True)
    images, labels = {}, {}
    for stem, count in (("train", 5), ("t10k", 3)):
        images[stem] = stream.randint(0, 256, (count, 28, 28), dtype=np.uint8)
        labels[stem] = stream.randint(0, 10, count, dtype=np.uint8)
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(idx(images[stem]))
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels[stem]))
    dataset = open_dataset(name)

    train, test = dataset.load("train"), dataset.load("test")

    np.testing.assert_array_equal(images["t10k"][:, None] / np.float32(255), test.inputs.numpy())
    assert labels["t10k"].tolist() == test.labels.tolist()
    assert len(train) == 5
    assert test.classes == 10
    assert name == test.name
    assert test.digest == dataset.digest("test") != dataset.digest("train")
    shown = dataset.pictures("test", 3, [2, 0])
    np.testing.assert_array_equal(dataset.choose("test", 3).inputs.numpy()[[2, 0]], shown)


def test_svhn_counts_from_zero(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour images come out as (N, 3, H, W), and SVHN's label 10 is the digit 0."""
    pixels = np.random.RandomState(0).randint(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    cache.mkdir()
    scipy.io.savemat(cache / "test_32x32.mat", {"X": pixels, "y": np.array([[10], [3]])})
    # The check sum of the real file cannot hold for this one.
    monkeypatch.setattr(torchvision.datasets.SVHN, "_check_integrity", lambda _: True)

    examples = open_dataset("svhn").load("test")

    expected = pixels.transpose(3, 2, 0, 1) / np.float32(255)
    np.testing.assert_array_equal(expected, examples.inputs.numpy())
    assert examples.labels.tolist() == [0, 3]


def test_cifar_images_are_channels_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What torchvision holds as (N, H, W, C) comes out as (N, C, H, W), with its class names."""
    pixels = np.random.RandomState(0).randint(0, 256, (2, 32, 32, 3), dtype=np.uint8)

    class Stored:
        data, targets, classes = pixels, [7, 0], list("abcdefghij")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda *_, **__: Stored)

    examples = open_dataset("cifar10").load("test")

    expected = pixels.transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(expected, examples.inputs.numpy())
    assert ([7, 0], tuple("abcdefghij")) == (examples.labels.tolist(), examples.class_names)


def test_pictures_are_never_downloaded(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A report asks nobody for what this machine has not."""
    asked = []

    def missing(*_: object, download: bool, **__: object) -> None:
        asked.append(download)
        raise RuntimeError

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", missing)

    assert open_dataset("cifar10").pictures("test", 2, [0]) is None
    assert asked == [False]
    assert not cache.exists()


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "cifar100", "svhn"])
def test_offline_error_says_what_to_do(cache: Path, name: str) -> None:
    """Neither cached nor reachable: one line with the folder, the reason and the ways out."""
    with pytest.raises(DataError, match=f"^{name} is not in '{cache}'") as caught:
        open_dataset(name).load("test")

    message = str(caught.value)
    assert "\n" not in message
    assert "connect to the network once" in message
    assert "parquet:PATH" in message


def test_damaged_cache_is_not_evaluated(cache: Path) -> None:
    """A truncated file is an error that names the folder, not fewer examples."""
    raw = cache / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem in ("train", "t10k"):
        images = idx(np.zeros((3, 28, 28), dtype=np.uint8))
        (raw / f"{stem}-images-idx3-ubyte").write_bytes(images[:-100])
        (raw / f"{stem}-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, dtype=np.uint8)))

    with pytest.raises(DataError, match=f"mnist is not in '{cache}' .or is damaged there"):
        open_dataset("mnist").load("test")


def test_cache_folder_follows_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """WINNOW_CACHE goes before XDG_CACHE_HOME, which goes before the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("WINNOW_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert tmp_path / "home/.cache/winnow" == cache_folder()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert tmp_path / "xdg/winnow" == cache_folder()

    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "chosen"))
    assert tmp_path / "chosen" == cache_folder()
