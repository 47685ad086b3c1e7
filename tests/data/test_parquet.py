from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bench.data import open_dataset
from bench.errors import DataError, InputNotice
from tests.data.conftest import Pixels, WriteParquet, png

if TYPE_CHECKING:
    from pathlib import Path

LABELS = [0, 1, 2, 2, 1, 0]
NAMES = ("cat", "dog", "eel")


def test_lossless_images_come_back(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Pixels are the stored ones / 255, with labels and class names as the metadata has them."""
    write_parquet(
        tmp_path / "pets.parquet", [*map(png, pixels)], LABELS, columns=("photo", "animal"),
        class_names=NAMES,
    )  # fmt: skip

    examples = open_dataset(f"parquet:{tmp_path / 'pets.parquet'}").load("test")

    expected = pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(expected, examples.inputs.numpy())
    assert examples.labels.tolist() == LABELS
    assert examples.class_names == NAMES
    assert examples.name == "pets"


def test_grayscale_images_have_one_channel(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Grayscale stays so; a palette is colour."""
    gray = pixels[..., 0]
    write_parquet(tmp_path / "gray.parquet", [*map(png, gray)], LABELS)
    buffer = io.BytesIO()
    Image.fromarray(pixels[0]).quantize(16).save(buffer, format="PNG")
    write_parquet(tmp_path / "palette.parquet", [buffer.getvalue()], [0])

    examples = open_dataset(f"parquet:{tmp_path / 'gray.parquet'}").load("test")
    palette = open_dataset(f"parquet:{tmp_path / 'palette.parquet'}").load("test")

    np.testing.assert_array_equal(gray[:, None] / np.float32(255), examples.inputs.numpy())
    assert palette.shape == (3, 5, 4)


@pytest.mark.parametrize("columns", [("image", "label"), ("img", "labels"), ("img", "fine_label")])
def test_usual_columns_need_no_metadata(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, columns: tuple[str, str]
) -> None:
    """Without metadata the columns are found by name, and classes are called by their numbers."""
    path = write_parquet(
        tmp_path / "bare.parquet", [*map(png, pixels)], LABELS, columns=columns, described=False
    )

    assert open_dataset(f"parquet:{path}").load("test").class_names == ("0", "1", "2")


def test_folder_holds_both_splits(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Files of a split are joined in order, and a class of one split exists in the other."""
    images = [*map(png, pixels)]
    write_parquet(tmp_path / "pets/train-00000-of-00002.parquet", images[:2], [0, 1])
    write_parquet(tmp_path / "pets/train-00001-of-00002.parquet", images[2:4], [1, 2])
    write_parquet(tmp_path / "pets/test-00000-of-00001.parquet", images[4:], [1, 0])
    dataset = open_dataset(f"parquet:{tmp_path / 'pets'}")

    train, test = dataset.load("train"), dataset.load("test")

    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 1, 2], [1, 0])
    np.testing.assert_array_equal(pixels[2], train.inputs[2].permute(1, 2, 0).numpy() * 255)
    assert test.classes == 3
    assert dataset.name == "pets"


def test_validation_stands_in_for_test(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """A folder without test files is evaluated on its validation files."""
    write_parquet(tmp_path / "pets/validation-00000-of-00001.parquet", [png(pixels[0])], [0])

    with pytest.warns(InputNotice, match="no test split; validation is taken for it"):
        assert len(open_dataset(f"parquet:{tmp_path / 'pets'}").load("test")) == 1


@pytest.mark.parametrize(("file", "missing"), [("pets", "train"), ("train-pets", "test")])
def test_single_file_is_one_split(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, file: str, missing: Any
) -> None:
    """Nobody trains on a test file by accident, nor evaluates on a train file."""
    path = write_parquet(tmp_path / f"{file}.parquet", [png(pixels[0])], [0])

    with pytest.raises(DataError, match=f"holds no {missing} split; give a folder"):
        open_dataset(f"parquet:{path}").load(missing)


@pytest.mark.parametrize(
    ("shape", "family"),
    [((8, 8), "digits"), ((28, 28), "mnist"), ((32, 32, 3), "cifar10"), ((32, 32), None)],
)
def test_family_follows_the_shape(
    tmp_path: Path, write_parquet: WriteParquet, shape: tuple[int, ...], family: str | None
) -> None:
    """Sets of a well-known shape get the defaults of the set that made it known."""
    image = png(np.zeros(shape, dtype=np.uint8))
    write_parquet(tmp_path / "one/train-00000-of-00001.parquet", [image], [0])

    assert family == open_dataset(f"parquet:{tmp_path / 'one'}").family


def test_digest_follows_content_alone(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Another split into files changes nothing; another image, label or order does."""
    images = [*map(png, pixels)]

    def digest(name: str, *parts: tuple[list[bytes], list[int]]) -> str:
        for index, (some, labels) in enumerate(parts):
            file = f"test-{index:05}-of-{len(parts):05}.parquet"
            write_parquet(tmp_path / name / file, some, labels, class_names=NAMES)
        return open_dataset(f"parquet:{tmp_path / name}").digest("test")

    whole = digest("whole", (images, LABELS))

    assert whole == digest("parts", (images[:4], LABELS[:4]), (images[4:], LABELS[4:]))
    assert whole != digest("label", (images, [1, *LABELS[1:]]))
    assert whole != digest("order", (images[::-1], LABELS))
    assert whole != digest("fewer", (images[:5], LABELS[:5]))


def refused(path: Path, message: str) -> None:
    """Loading has to fail with one line that matches."""
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"parquet:{path}").load("test")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 3, 200])
def test_damaged_file_is_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, kept: int
) -> None:
    """An empty or truncated file is named, in one line."""
    path = write_parquet(tmp_path / "cut.parquet", [*map(png, pixels)], LABELS)
    path.write_bytes(path.read_bytes()[:kept])

    refused(path, r"cut.parquet' cannot be read as a Parquet file \(.+\); .* again$")


def test_damaged_pages_are_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Damage in the middle, which opening the file does not see, is named as well."""
    path = write_parquet(tmp_path / "hole.parquet", [*map(png, pixels)], LABELS)
    data = bytearray(path.read_bytes())
    data[4:200] = bytes(196)
    path.write_bytes(data)

    refused(path, "hole.parquet' cannot be read as a Parquet file")


def test_names_that_are_no_text_are_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """A changed byte in the name of a column makes pyarrow raise another error."""
    path = write_parquet(tmp_path / "name.parquet", [png(pixels[0])], [0], described=False)
    path.write_bytes(path.read_bytes().replace(b"label", b"\x9fabel"))

    refused(path, "name.parquet' cannot be read as a Parquet file .*UnicodeDecodeError|codec")


def test_missing_part_of_a_split_is_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """A split of which files are missing is not evaluated as if it were whole."""
    write_parquet(tmp_path / "pets/test-00000-of-00003.parquet", [png(pixels[0])], [0])

    refused(tmp_path / "pets", "pets holds 1 of the 3 files that test-00000-of-00003.parquet")


def test_folder_without_parquet_files_is_refused(tmp_path: Path) -> None:
    """The error says which files are looked for."""
    refused(tmp_path, r"has no test split: no test-\*.parquet in")


def test_mixed_sizes_are_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """The first image of another size is named by its row."""
    images = [*map(png, pixels)]
    images[4] = png(pixels[4][:, :3])

    refused(
        write_parquet(tmp_path / "mixed.parquet", images, LABELS),
        "row 4 of mixed.parquet is 3x5x3 but the ones before it are 3x5x4",
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no image at all", "row 3 of bad.parquet is not an image that can be decoded"),
        (b"", "row 3 of bad.parquet holds no image bytes"),
        (None, "row 3 of bad.parquet holds no image bytes"),
    ],
)
def test_undecodable_image_is_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, data: bytes | None, message: str
) -> None:
    """The row of the first image that is none is named."""
    images: list[bytes | None] = [*map(png, pixels)]
    images[3] = data

    refused(write_parquet(tmp_path / "bad.parquet", images, LABELS), message)


def test_truncated_image_is_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Half a PNG is an error, not an image with a black half."""
    half = png(pixels[0])[:80]

    refused(
        write_parquet(tmp_path / "half.parquet", [half], [0]),
        "row 0 of half.parquet is not an image that can be decoded",
    )


def test_deep_images_are_refused(tmp_path: Path, write_parquet: WriteParquet) -> None:
    """16-bit images would be clipped to white, so they are not read."""
    deep = png(np.full((8, 8), 40_000, dtype=np.uint16))

    refused(write_parquet(tmp_path / "deep.parquet", [deep], [0]), "more than 8 bits a channel")


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "row 1 of odd.parquet has no label"),
        (-1, "row 1 of odd.parquet has the label -1; every image has to have a label of 0 or more"),
        (3, "row 1 of odd.parquet has the label 3; labels have to be in 0 … 2"),
    ],
)
def test_impossible_labels_are_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, label: int | None, message: str
) -> None:
    """Missing, negative and too large labels are named by row."""
    images = [*map(png, pixels[:2])]
    path = write_parquet(tmp_path / "odd.parquet", images, [0, label], class_names=NAMES)

    refused(path, message)


def test_empty_file_is_refused(tmp_path: Path, write_parquet: WriteParquet) -> None:
    """A file without rows has nothing to evaluate."""
    refused(write_parquet(tmp_path / "none.parquet", [], []), "none holds no images")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [0]}, "has no column of images: it has text, label; call it ima"),
        ({"image": [b"a"], "class": [0]}, "has no column of labels: it has image, class; call it"),
        ({"image": ["a"], "label": [0]}, "column 'image' .* has to hold bytes, .*; got string"),
        ({"image": [b"a"], "label": [0.5]}, "column 'label' .* has to hold whole numbers .*double"),
    ],
)
def test_unsuitable_columns_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], message: str
) -> None:
    """The error says which columns there are, or of which type, and what is wanted."""
    pq.write_table(pa.table(columns), tmp_path / "odd.parquet")

    refused(tmp_path / "odd.parquet", message)
