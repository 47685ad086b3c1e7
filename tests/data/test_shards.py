"""Parquet files by their names: a split that is not all there, or there twice, is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from bench.data import open_dataset
from bench.errors import DataError, InputNotice
from tests.data.conftest import Pixels, WriteParquet, png

if TYPE_CHECKING:
    from pathlib import Path

#: Digests that Hugging Face puts behind the number.
ONE, TWO = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([f"test-00000-of-00002-{ONE}"], r"holds 1 of the 2 files .*\(number 1\)"),
        (["test-00000-of-00003", "test-00002-of-00003"], r"2 of the 3 files .*\(number 1\)"),
        (["test-00000-of-00002", "test-00000-of-00003"], "mixes files of one split that do not"),
        ([f"test-00000-of-00001-{ONE}", f"test-00000-of-00001-{TWO}"], "part of a split twice"),
        ([f"test-00000-of-00002-{ONE}", f"test-00000-of-00002-{TWO}"], "part of a split twice"),
        (["test", "test-00000-of-00001"], "mixes files of one split"),
        (["test/0000", "test/0002"], "by their numbers, others are missing"),
        (["test/0003"], "by their numbers, others are missing"),
        (["test-2024"], None),
        (["test_0_of_2"], r"holds 1 of the 2 files .*\(number 1\)"),
        (["TEST-00000-OF-00002"], r"holds 1 of the 2 files"),
        (["partial-test/0000"], r"holds a part of its data \(partial-test\)"),
        (["a/test-00000-of-00001", "b/test-00000-of-00001"], "they lie in a, b; give parquet:.*a"),
        (["small/test/0000", "large/test/0000"], "they lie in large, small; give parquet:.*large"),
        (["test", "data/test"], "holds Parquet files, and its folder data as well"),
        (["validation", "val"], "each could be the validation split"),
        (["test", "test (1)"], r"several files of one split, .*: test \(1\)\.parquet, test\.parq"),
        (["test (1)", "test (2)"], r"several files of one split, .*such as parquet:.*test \(1\)"),
        (["test", "test copy"], "several files of one split"),
        (["test-clean", "test-other"], r"several .* such as parquet:.*/pets/test-clean\.parquet"),
        (["test_v1", "test_v2"], "several files of one split"),
        (["test-2023", "test-2024"], "several files of one split"),
        (["test_1", "test_01"], "several files of one split"),
        (["test/a", "test/b"], "test holds several files of one split"),
        (["test_0", "test_1"], None),
        (["test/part.9", "test/part.10"], None),
        (["test/part-00000-0a1b.c000.snappy", "test/part-00001-0a1b.c000.snappy"], None),
        (
            ["split=test/0", "split=train/0"],
            r"values of a column .*: rename split=test to test, and",
        ),
        (
            ["label=0/0", "label=1/0"],
            r"\(label=0, label=1\), .*: write them as one test\.parquet, wh",
        ),
        (["0000"], r"no test-\*.parquet in .*: it holds 0000.parquet"),
    ],
)
def test_what_is_not_one_whole_split_is_refused(
    tmp_path: Path,
    pixels: Pixels,
    write_parquet: WriteParquet,
    names: list[str],
    message: str | None,
) -> None:
    """Missing, doubled or mixed files, and files in places that leave a choice."""
    for name in names:
        write_parquet(tmp_path / "pets" / f"{name}.parquet", [png(pixels[0])], [0])
    dataset = open_dataset(f"parquet:{tmp_path / 'pets'}")

    if message is None:
        assert len(dataset.load("test")) == len(names)
        return
    with pytest.raises(DataError, match=message) as caught:
        dataset.load("test")
    assert "\n" not in str(caught.value)


def test_one_file_in_two_names_is_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """By a link, whatever numbers it has, and where the ending is in capitals."""
    for name, link in (("test-0", "test-1.parquet"), ("test", "test.PARQUET")):
        path = write_parquet(tmp_path / f"{name}/{name}.parquet", [png(pixels[0])], [0])
        path.with_name(link).symlink_to(path)
        with pytest.raises(DataError, match=r"twice: test.* and test.* are one by a link"):
            open_dataset(f"parquet:{tmp_path / name}").load("test")
    (tmp_path / "test/test.parquet").rename(tmp_path / "test/elsewhere")
    with pytest.raises(DataError, match=r"test/test\.PARQUET' is a link to nothing: fetch what"):
        open_dataset(f"parquet:{tmp_path / 'test'}").load("test")
    (tmp_path / "test/elsewhere").rename(tmp_path / "test/test.parquet")
    (tmp_path / "test/test.PARQUET").unlink()
    (tmp_path / "test/test.PARQUET").write_bytes(b"")
    with pytest.raises(DataError, match=r"several files of one split.*test\.PARQUET"):
        open_dataset(f"parquet:{tmp_path / 'test'}").load("test")


def test_an_incomplete_training_split_is_refused_as_well(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """What classes there are is read from it, whatever is evaluated."""
    write_parquet(tmp_path / "pets/test.parquet", [png(pixels[0])], [0])
    write_parquet(tmp_path / f"pets/train-00001-of-00002-{ONE}.parquet", [png(pixels[0])], [0])

    with pytest.raises(DataError, match=r"1 of the 2 files that train-.*\(number 0\)"):
        open_dataset(f"parquet:{tmp_path / 'pets'}").load("test")


def test_one_file_of_several_is_not_a_split(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Though it is named itself."""
    path = write_parquet(tmp_path / f"test-00000-of-00002-{ONE}.parquet", [png(pixels[0])], [0])

    with pytest.raises(DataError, match="is one of 2 files of a split; give the folder"):
        open_dataset(f"parquet:{path}").load("test")


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (f"data/train-00000-of-00001-{ONE}", f"data/test-00000-of-00001-{TWO}", "lie in data/"),
        ("train/0000", "validation/0000", "no test split; validation is taken for it"),
        ("train", "val", "no test split; val is taken for it"),
        ("train_set", "dev-a", "no test split; dev is taken for it"),
        ("default/train/0000", "default/test/0000", "its files lie in default/"),
        ("plain_text/train-00000-of-00001", "plain_text/test", "its files lie in plain_text/"),
        ("a/b/train", "a/b/validation", "its files lie in a/b/"),
    ],
)
def test_places_of_clones_are_read(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, train: str, test: str, said: str
) -> None:
    """A clone from Hugging Face with `data/`, a folder for each split, and other names."""
    write_parquet(tmp_path / f"pets/{train}.parquet", [png(pixels[0])], [1])
    write_parquet(tmp_path / f"pets/{test}.parquet", [png(pixels[1]), png(pixels[2])], [1, 0])
    dataset = open_dataset(f"parquet:{tmp_path / 'pets'}")

    with pytest.warns(InputNotice, match=said):
        assert dataset.load("test").labels.tolist() == [1, 0]
    with pytest.warns(InputNotice, match=said):
        assert dataset.load("train").labels.tolist() == [1]


def test_hidden_labels_are_evaluated_on_another_split(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """As of ImageNet's test split; what is not read is said."""
    write_parquet(tmp_path / "pets/test.parquet", [png(pixels[0])], [-1])
    write_parquet(tmp_path / "pets/validation.parquet", [png(pixels[1])], [0])
    write_parquet(tmp_path / "pets/extra.parquet", [png(pixels[2])], [0])

    with pytest.raises(DataError, match=r"the label -1; .*hides it: .*\[split=validation\]"):
        open_dataset(f"parquet:{tmp_path / 'pets'}").load("test")
    dataset = open_dataset(f"parquet:{tmp_path / 'pets'}[split=validation]")
    with pytest.warns(InputNotice):
        assert len(dataset.load("test")) == 1
    assert dataset.notes == ("not read: test", "of no split by their names, not read: extra")
