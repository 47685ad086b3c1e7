"""Corrupted images: CIFAR-10-C's files by kind and severity, and those that a library makes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from bench.api import Examples
from bench.data import open_dataset
from bench.data.corrupted import COMMON, FURTHER, SEVERITIES, CorruptedCifar10, generated, stored
from bench.errors import DataError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

#: Images of each severity.
COUNT = 20


def level(kind: str, severity: int, place: int) -> int:
    """The gray of an image, another one of each kind, severity and place."""
    return 60 * ("fog", "snow", "saturate").index(kind) + 10 * severity + place % 10


def cifar10_c(root: Path, *, labels: int = 5 * COUNT) -> Path:
    """Files as CIFAR-10-C's: three kinds, five severities of 20 images one after another."""
    folder = root / "CIFAR-10-C"
    folder.mkdir()
    for kind in ("fog", "snow", "saturate"):
        grays = [level(kind, severity, place) for severity in SEVERITIES for place in range(COUNT)]
        images = np.array(grays, dtype=np.uint8)[:, None, None, None]
        np.save(folder / f"{kind}.npy", np.broadcast_to(images, (5 * COUNT, 32, 32, 3)))
    np.save(folder / "labels.npy", (np.arange(labels) % COUNT % 10).astype(np.uint8))
    return folder


def grays(examples: Examples) -> list[int]:
    """The gray of each image."""
    return [int(value) for value in (examples.inputs[:, 0, 0, 0] * 255).round()]


@pytest.mark.parametrize("labels", [COUNT, 5 * COUNT])
def test_a_kind_and_severity_is_a_data_set(tmp_path: Path, labels: int) -> None:
    """Its fifth of the images, with CIFAR-10's classes and family."""
    folder = cifar10_c(tmp_path, labels=labels)
    dataset = open_dataset(f"cifar10-c:{folder}[kind=snow,severity=4]")
    examples = dataset.load("test")

    assert grays(examples) == [level("snow", 4, place) for place in range(COUNT)]
    assert examples.labels.tolist() == [place % 10 for place in range(COUNT)]
    assert (examples.name, dataset.family) == ("CIFAR-10-C[kind=snow,severity=4]", "cifar10")
    assert examples.class_names[:2] == ("airplane", "automobile")


def test_the_same_images_are_chosen_of_every_part(tmp_path: Path) -> None:
    """By their labels, so that parts are compared on the same images."""
    dataset = open_dataset(f"cifar10-c:{cifar10_c(tmp_path)}")
    assert isinstance(dataset, CorruptedCifar10)
    corruptions = stored(dataset, 7)

    assert corruptions.kinds == ("snow", "fog", "saturate")
    first = corruptions.of("fog", 1)
    for kind in corruptions.kinds:
        for severity in SEVERITIES:
            part = corruptions.of(kind, severity)
            shift = level(kind, severity, 0) - level("fog", 1, 0)
            assert grays(part) == [gray + shift for gray in grays(first)]
            assert torch.equal(part.labels, first.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("", r"3 kinds .* in 5 severities: .*\[kind=snow,severity=3\].*bench corruptions"),
        ("[kind=fog]", r"3 kinds .* in 5 severities"),
        ("[kind=frost,severity=1]", "has no frost.npy; it has snow, fog, saturate"),
        ("[kind=fog,severity=6]", "severity has to be a whole number from 1 to 5"),
    ],
)
def test_a_part_has_to_be_named(tmp_path: Path, options: str, message: str) -> None:
    """What there is, and what tells of all of it."""
    folder = cifar10_c(tmp_path)

    with pytest.raises(UsageError, match=message):
        open_dataset(f"cifar10-c:{folder}{options}").load("test")


def test_other_folders_are_refused(tmp_path: Path) -> None:
    """Without labels, and with severities of different length."""
    folder = cifar10_c(tmp_path)
    np.save(folder / "fog.npy", np.zeros((12, 32, 32, 3), dtype=np.uint8))

    with pytest.raises(DataError, match=r"fog\.npy holds 12 images; five severities of 20 each"):
        open_dataset(f"cifar10-c:{folder}[kind=fog,severity=1]").load("test")
    (folder / "labels.npy").unlink()
    with pytest.raises(DataError, match="not laid out as the files of cifar10-c are"):
        open_dataset(f"cifar10-c:{folder}[kind=fog,severity=1]").load("test")


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (5 * COUNT - 5, 5 * COUNT, r"snow\.npy holds 95 images; five .* of 20 each are 100"),
        (5 * COUNT - 5, COUNT, r"snow\.npy of .* holds 95 images, and labels\.npy 20 labels"),
        (COUNT, COUNT, r"holds 20 images, and labels\.npy 20 labels, which are neither"),
        (5 * COUNT - 5, 5 * COUNT - 5, r"holds 95 images, and labels\.npy 95 labels"),
        (5 * COUNT, 5 * COUNT + 5, r"holds 100 images, and labels\.npy 105 labels"),
    ],
)
def test_files_that_are_cut_off_are_refused(
    tmp_path: Path, images: int, labels: int, message: str
) -> None:
    """By their lengths and labels: cut at other places, they would be of other severities."""
    folder = cifar10_c(tmp_path, labels=labels)
    np.save(folder / "snow.npy", np.resize(np.load(folder / "snow.npy"), (images, 32, 32, 3)))

    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"cifar10-c:{folder}[kind=snow,severity=4]").load("test")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_classes_that_no_image_has_need_no_word(tmp_path: Path) -> None:
    """Where names are known; a label beyond them is refused."""
    folder = cifar10_c(tmp_path)
    dataset = f"cifar10-c:{folder}[kind=snow,severity=4]"
    np.save(folder / "labels.npy", np.arange(5 * COUNT) % COUNT % 5 + 5)
    assert open_dataset(dataset).load("test").classes == 10
    np.save(folder / "labels.npy", np.arange(5 * COUNT) % COUNT % 5 + 6)
    with pytest.raises(DataError, match=r"has labels from 6 to 10; they have to be in 0 … 9"):
        open_dataset(dataset).load("test")


def images(channels: int = 3, side: int = 32, n: int = 2) -> Examples:
    """Random images of 8 bits."""
    pixels = np.random.RandomState(0).randint(0, 256, (n, channels, side, side))
    inputs = torch.from_numpy(pixels).float() / 255
    return Examples.of(inputs, torch.zeros(n, dtype=torch.long), ("a", "b"), "pets")


def test_what_cannot_be_corrupted_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that are too small, and a library that is missing."""
    with pytest.raises(DataError, match=r"1x8x8; .* at least 32x32"):
        generated(images(1, 8))
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(DataError, match=r"pip install 'winnow-bench\[corruptions\]'"):
        generated(images())


@pytest.mark.whole
def test_a_library_makes_all_kinds_and_severities() -> None:
    """The same each time, another of each severity and image, whatever was drawn before.

    Contrast is known: the mean of each channel stays, what lies around it shrinks to 0.4, 0.3, 0.2,
    0.1 and 0.05 of itself.
    """
    library = pytest.importorskip("imagecorruptions")
    clean = images()
    made = generated(clean, seed=3)
    state = np.random.get_state(legacy=False)["state"]["key"].copy()  # noqa: NPY002

    assert set(made.kinds) == set(COMMON)
    assert set(library.get_corruption_names("validation")) == set(FURTHER)
    for kind in made.kinds:
        parts = [made.of(kind, severity) for severity in SEVERITIES]
        assert len({part.digest for part in parts}) == 5, kind
        assert parts[1].digest == made.of(kind, 2).digest, kind
        assert parts[0].shape == clean.shape
        alone = generated(clean.take([0]), seed=3).of(kind, 2)
        assert torch.equal(alone.inputs, parts[1].inputs[:1]), kind
    assert made.of("snow", 1).digest != generated(clean, seed=4).of("snow", 1).digest
    now = np.random.get_state(legacy=False)["state"]["key"]  # noqa: NPY002
    assert np.array_equal(state, now)
    means = clean.inputs.mean(dim=(2, 3), keepdim=True)
    for severity, factor in zip(SEVERITIES, (0.4, 0.3, 0.2, 0.1, 0.05), strict=True):
        expected = (clean.inputs - means) * factor + means
        got = made.of("contrast", severity).inputs
        assert torch.allclose(got, expected, atol=1 / 255 + 1e-6)
    assert generated(images(1)).of("fog", 1).shape == (1, 32, 32)
