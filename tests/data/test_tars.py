"""`webdataset:PATH`: tar archives read without unpacking them, or refused in one line."""

from __future__ import annotations

import io
import tarfile
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
import torch

from bench.data import open_dataset
from bench.errors import DataError, InputNotice
from tests.data.conftest import Pixels, png

if TYPE_CHECKING:
    from pathlib import Path


def archive(path: Path, files: dict[str, bytes], mode: Literal["w", "w:gz"] = "w") -> Path:
    """A tar archive of files by their names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def samples(pixels: Pixels, labels: list[str], ending: str = "cls") -> dict[str, bytes]:
    """The files of some images with their labels, as WebDataset's writer calls them."""
    return {
        name: data
        for place, (image, label) in enumerate(zip(pixels, labels, strict=True))
        for name, data in (
            (f"{place:06}.png", png(image)),
            (f"{place:06}.{ending}", label.encode()),
            (f"{place:06}.json", b"{}"),
        )
    }


def expected(pixels: Pixels) -> torch.Tensor:
    """Colour images (N, H, W, 3) of 8 bits as inputs, by torch alone."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def test_one_archive_is_the_test_split(tmp_path: Path, pixels: Pixels) -> None:
    """In its order; what is chosen of it is the same as of the whole."""
    path = archive(tmp_path / "pets.tar", samples(pixels, ["0", "1", "2", "0\n", "1", "2"]))
    dataset = open_dataset(f"webdataset:{path}")
    whole = dataset.load("test")

    assert torch.equal(whole.inputs, expected(pixels))
    assert whole.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert (whole.name, whole.class_names) == ("pets", ("0", "1", "2"))
    chosen = dataset.choose("test", 3)
    assert all((whole.inputs == each).flatten(1).all(1).any() for each in chosen.inputs)
    assert chosen.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("form", ["{}-0000{}.tar", "pets-{}-{}.tar", "{}/0{}.tar"])
def test_archives_of_a_folder_are_of_the_split_they_are_called(
    tmp_path: Path, pixels: Pixels, form: str
) -> None:
    """Both of one split together, `val` for a missing test split, and it is said."""
    root = tmp_path / "pets"
    archive(root / form.format("train", 0), samples(pixels[:2], ["1", "0"]))
    archive(root / form.format("val", 0), samples(pixels[2:4], ["1", "0"]))
    archive(root / form.format("val", 1), samples(pixels[4:], ["0", "1"]))
    dataset = open_dataset(f"webdataset:{root}")

    with pytest.warns(InputNotice, match="no test split; val is taken for it"):
        test = dataset.load("test")
    assert torch.equal(test.inputs, expected(pixels[2:]))
    assert test.labels.tolist() == [1, 0, 0, 1]
    with pytest.warns(InputNotice):
        assert torch.equal(dataset.load("train").inputs, expected(pixels[:2]))


def test_archives_may_end_in_capitals(tmp_path: Path, pixels: Pixels) -> None:
    """One of them, or those of a folder; a name keeps what else looks like an ending."""
    path = archive(tmp_path / "my.target/A.TAR", samples(pixels[:2], ["0", "1"]))

    for place, called in ((path, "A"), (path.parent, "my.target")):
        examples = open_dataset(f"webdataset:{place}").load("test")
        assert torch.equal(examples.inputs, expected(pixels[:2]))
        assert examples.name == called


def test_labels_may_be_names(tmp_path: Path, pixels: Pixels) -> None:
    """By the alphabet, or places in a file of classes; another ending is named."""
    path = archive(tmp_path / "pets.tar", samples(pixels[:2], ["owl", "ant"], "txt"))
    (tmp_path / "all.txt").write_text("bee\nant\nowl\n")

    with pytest.raises(DataError, match=r"000000 of pets\.tar has no label: .*label=ENDING"):
        open_dataset(f"webdataset:{path}").load("test")
    with pytest.warns(InputNotice, match="alphabet's order"):
        assert open_dataset(f"webdataset:{path}[label=txt]").load("test").labels.tolist() == [1, 0]
    given = f"webdataset:{path}[label=txt,classes={tmp_path / 'all.txt'}]"
    assert open_dataset(given).load("test").labels.tolist() == [2, 1]


def test_images_are_made_one_size(tmp_path: Path) -> None:
    """As those of folders are."""
    images = [np.full((side, side, 3), side, dtype=np.uint8) for side in (8, 12)]
    path = archive(tmp_path / "pets.tar", samples(images, ["0", "1"]))

    with pytest.raises(DataError, match=r"webdataset:PATH\[resize=8,crop=8\]"):
        open_dataset(f"webdataset:{path}").load("test")
    shape = open_dataset(f"webdataset:{path}[resize=8,crop=8]").load("test").shape
    assert shape == (3, 8, 8)


def test_archives_that_are_not_whole_are_refused(tmp_path: Path, pixels: Pixels) -> None:
    """One missing by its number, one compressed, one cut off, and images without a choice."""
    files = samples(pixels[:2], ["0", "1"])
    for number in (0, 2):
        archive(tmp_path / f"gap/pets-00{number}.tar", files)
    for name in ("t", "t (1)"):
        archive(tmp_path / f"copies/{name}.tar", files)
    packed = archive(tmp_path / "packed.tar", files, "w:gz")
    cut = archive(tmp_path / "cut.tar", files)
    cut.write_bytes(cut.read_bytes()[:700])
    hidden = archive(tmp_path / "hidden.tar", samples(pixels[:2], ["0", "-1"]))
    double = archive(tmp_path / "double.tar", {**files, "000000.jpg": b"", "000001.jpg": b""})
    for again in ("000001.cls", "./000001.png", "000001.PNG"):
        twice = archive(tmp_path / f"twice-{len(again)}-{again[-3:]}.tar", files)
        with tarfile.open(twice, "a") as tar:
            tar.addfile(tarfile.TarInfo(again), io.BytesIO())
        with pytest.raises(DataError, match=r"twice-.*tar holds 000001\.(cls|png|PNG) twice, and"):
            open_dataset(f"webdataset:{twice}").load("test")
    (tmp_path / "none").mkdir()

    for path, message in (
        (tmp_path / "gap", "by their numbers, others are missing"),
        (tmp_path / "copies", r"several files of one split, .*such as webdataset:.*t \(1\)\.tar"),
        (packed, "is no whole, uncompressed tar archive: it is a gzip file: unpack it"),
        (cut, "is no whole, uncompressed tar archive: its end is missing: fetch it again"),
        (hidden, r"000001 of hidden.tar has the label -1; labels have to be in 0 … 0"),
        (double, r"several images \(png, jpg\).*\[image=ENDING\]"),
        (tmp_path / "none", "holds no .tar files"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            open_dataset(f"webdataset:{path}").load("test")
        assert "\n" not in str(caught.value)
    named = open_dataset(f"webdataset:{double}[image=png]").load("test")
    assert torch.equal(named.inputs, expected(pixels[:2]))
