"""Which columns and which labels: said where there was a choice, refused where nothing tells."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from bench.data import cache_folder, open_dataset
from bench.data.reading import with_classes
from bench.errors import DataError, InputNotice, UnknownNameError, UsageError
from tests.data.conftest import Pixels, WriteParquet, fill, png

if TYPE_CHECKING:
    from bench.api import Examples

NAMES = ("cat", "dog", "eel")


def read(path: Path, said: str, options: str = "") -> Examples:
    """What is read of the test split, with one note that matches."""
    with pytest.warns(InputNotice, match=said):
        return open_dataset(f"parquet:{path}{options}").load("test")


def refused(path: Path, message: str, options: str = "") -> None:
    """Loading has to fail with one line that matches."""
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"parquet:{path}{options}").load("test")
    assert "\n" not in str(caught.value)


def test_labels_follow_names_not_numbers(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Where test names its classes in another order than train, and where a shard does."""
    images, other = [*map(png, pixels[:3])], ("eel", "dog", "cat")
    write_parquet(tmp_path / "a/train.parquet", images, [0, 1, 2], class_names=NAMES)
    write_parquet(tmp_path / "a/test.parquet", images, [0, 1, 2], class_names=other)
    write_parquet(tmp_path / "b/test-00000-of-00002.parquet", images, [0, 1, 2], class_names=NAMES)
    write_parquet(tmp_path / "b/test-00001-of-00002.parquet", images, [0, 0, 2], class_names=other)

    splits = read(
        tmp_path / "a", r"test.parquet has its classes in another order \(eel, dog, cat\)"
    )
    shards = read(tmp_path / "b", "test-00001-of-00002.parquet has its classes in another order")

    assert (splits.labels.tolist(), splits.class_names) == ([2, 1, 0], NAMES)
    assert shards.labels.tolist() == [0, 1, 2, 2, 2, 0]


@pytest.mark.parametrize(
    ("test", "said"),
    [
        (("cat", "eel"), "test.parquet has 2 of the 3 classes of train.parquet"),
        (None, "test.parquet names no classes: its labels are places in train.parquet"),
        (("cat", "fox"), None),
    ],
)
def test_names_of_fewer_classes_are_mapped(
    tmp_path: Path,
    pixels: Pixels,
    write_parquet: WriteParquet,
    test: tuple[str, ...] | None,
    said: str | None,
) -> None:
    """Without names, numbers are taken for train's; a name that train has not is refused."""
    write_parquet(tmp_path / "train.parquet", [*map(png, pixels[:3])], [0, 1, 2], class_names=NAMES)
    write_parquet(tmp_path / "test.parquet", [png(pixels[0])], [1], class_names=test)

    if said is None:
        refused(
            tmp_path, "test.parquet has 1 of 2 classes .* not among those of train.*: fox; those"
        )
    else:
        assert read(tmp_path, said).labels.tolist() == [1 if test is None else 2]


def test_a_label_beyond_its_own_names_is_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Though another file names more classes."""
    write_parquet(tmp_path / "train.parquet", [*map(png, pixels[:3])], [0, 1, 2], class_names=NAMES)
    write_parquet(tmp_path / "test.parquet", [png(pixels[0])], [2], class_names=("dog", "cat"))

    refused(tmp_path, "row 0 of test.parquet has the label 2; .* in 0 … 1, for its file names 2")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())]
)
def test_text_labels_are_classes_in_the_order_of_both_splits(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, kind: Any
) -> None:
    """A class that test lacks keeps its place; numbers in text are in their order."""
    images = [*map(png, pixels[:3])]
    write_parquet(tmp_path / "a/train.parquet", images, ["eel", "cat", "dog"], label_type=kind)
    write_parquet(tmp_path / "a/test.parquet", images[:2], ["eel", "dog"], label_type=kind)
    write_parquet(tmp_path / "b/test.parquet", images, ["10", "9", "11"], label_type=kind)

    words = read(
        tmp_path / "a", r"text labels are classes in the alphabet's order \(cat, dog, eel\)"
    )
    numbers = read(tmp_path / "b", r"order of their numbers \(9, 10, 11\)")

    assert (words.labels.tolist(), words.class_names) == ([2, 1], NAMES)
    assert numbers.labels.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["cat", "Cat"], "'Cat' and 'cat' differ in spelling alone"),
        (["cat", None], "row 1 of odd.parquet has no label"),
        ([0, 10**9], "a label is 1000000000: labels count classes from 0"),
        ([0.0, 1.0], "whole numbers or class names; got double .*cast it to int64"),
        ([True, False], "got bool .*cast it to int64"),
        ([[0, 1], [1, 0]], "got list<.*one label per image"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, labels: list[Any], message: str
) -> None:
    """With what to do; a huge one takes no memory."""
    kind = pa.array(labels).type
    path = write_parquet(
        tmp_path / "odd.parquet", [*map(png, pixels[:2])], labels, label_type=kind, described=False
    )

    refused(path, message)


def test_numbers_that_never_occur_are_said(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Labels counted from 1 make a class 0 without images."""
    path = write_parquet(tmp_path / "one.parquet", [*map(png, pixels[:3])], [1, 2, 3])

    assert read(path, "no image has the label 0; classes are 0 … 3").classes == 4


def test_several_columns_are_told_apart_by_name(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """One of the usual name is taken, with a word; two are refused; the option names one."""
    images, other = [*map(png, pixels[:2])], pa.array([0, 0])
    usual = write_parquet(
        tmp_path / "a.parquet", images, [0, 1], class_names=NAMES, further={"coarse": other}
    )
    twice = write_parquet(
        tmp_path / "b.parquet", images, [0, 1], further={"labels": other}, described=False
    )

    assert read(usual, "column 'label', not of coarse; .*label=coarse").labels.tolist() == [0, 1]
    refused(twice, r"several columns of labels \(label, labels\); .*label=label")
    chosen = open_dataset(f"parquet:{twice}[label=labels]")
    assert chosen.load("test").labels.tolist() == [0, 0]
    assert chosen.name == "b[label=labels]"
    refused(twice, "has no column 'fine': it has image, label, labels", "[label=fine]")


@pytest.mark.filterwarnings("ignore::bench.errors.InputNotice")
@pytest.mark.parametrize("plain", ["label", "labels", "fine_label"])
def test_the_usual_name_comes_before_another_column_that_is_marked(
    tmp_path: Path, pixels: Pixels, plain: str
) -> None:
    """Of labels and images, with a word on each; one that cannot be read is passed over."""
    images = {"image": [*map(png, pixels[:2])], "thumbnail": [*map(png, pixels[2:4])]}
    table = pa.table({"thumbnail": images["thumbnail"], "age": [1, 1], plain: [0, 1]})
    marks = {"thumbnail": {"_type": "Image"}, "age": {"_type": "ClassLabel", "names": ["a", "b"]}}
    described = {"huggingface": json.dumps({"info": {"features": marks}})}
    for name, more in (("a", images["image"]), ("b", ["1.png", "2.png"]), ("c", None)):
        full = table.append_column("image", [more]) if more else table
        pq.write_table(full.replace_schema_metadata(described), tmp_path / f"{name}.parquet")

    said = rf"column '{plain}', not of age; another is taken by \[label=age\]"
    both = read(tmp_path / "a.parquet", said)
    with pytest.warns(InputNotice, match=r"column 'image', not of thumbnail; .*image=thumbnail"):
        open_dataset(f"parquet:{tmp_path / 'a.parquet'}").load("test")
    small = [read(tmp_path / f"{name}.parquet", said) for name in "bc"]

    expected = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    assert torch.equal(both.inputs, expected[:2])
    assert all(torch.equal(examples.inputs, expected[2:4]) for examples in small)
    assert [examples.labels.tolist() for examples in (both, *small)] == [[0, 1]] * 3


def test_a_usual_name_of_another_type_is_not_taken(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """A score beside the column that is marked."""
    path = write_parquet(
        tmp_path / "a.parquet", [png(pixels[0])], [0.5], label_type=pa.float64(),
        further={"age": pa.array([0])},
    )  # fmt: skip

    assert open_dataset(f"parquet:{path}").load("test").class_names == ("x",)


def test_columns_of_one_name_are_refused(tmp_path: Path, pixels: Pixels) -> None:
    """Parquet allows them."""
    arrays = [pa.array([png(pixels[0])]), pa.array([0]), pa.array([1])]
    table = pa.Table.from_arrays(arrays, names=["image", "label", "label"])
    pq.write_table(table, tmp_path / "two.parquet")

    refused(tmp_path / "two.parquet", "several columns called 'label'")


def test_a_column_of_splits_is_said_not_to_be_followed(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Rows that a model was trained on may be among them."""
    further = {"split": pa.array(["train", "test"])}
    path = write_parquet(
        tmp_path / "a.parquet", [*map(png, pixels[:2])], [0, 1], further=further, described=False
    )

    assert len(read(path, "a.parquet has a column 'split', which is not followed")) == 2


def test_a_training_file_is_evaluated_with_a_word(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet
) -> None:
    """Where its name says train without beginning so."""
    path = write_parquet(tmp_path / "pets_train.parquet", [png(pixels[0])], [0])

    assert len(read(path, "the file is called pets_train.parquet, and all of it is eval")) == 1


def test_columns_can_be_named(tmp_path: Path, pixels: Pixels) -> None:
    """WebDataset's `jpg` and `cls`; the refusal says how."""
    table = pa.table({"jpg": [*map(png, pixels[:2])], "cls": [1, 0]})
    pq.write_table(table, tmp_path / "web.parquet")

    refused(tmp_path / "web.parquet", r"no column of images: it has jpg, cls; .*image=NAME")
    named = open_dataset(f"parquet:{tmp_path / 'web.parquet'}[label=cls,image=jpg]")
    assert named.load("test").labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (["a.png", "b.png"], "got string .*paths are not followed: .*embed_table_storage"),
        ([{"bytes": None, "path": "a.png"}] * 2, "row 0 .* no image bytes but the path 'a.png'"),
        (pa.array([{"bytes": None, "path": "a.png"}] * 2), "paths are not followed: .*embed_table"),
        ([[[[1, 2]]]] * 2, "got list<.*encode each array as a PNG"),
        ([[b"a"], [b"b"]], "got list<"),
        ([1, 2], r"got int64 .*image=NAME"),
    ],
)
def test_images_that_are_not_in_the_file_are_refused(
    tmp_path: Path, images: Any, message: str
) -> None:
    """Paths, arrays and lists, each with what to do."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = (
        images
        if isinstance(images, pa.Array)
        else pa.array(images, kind if isinstance(images[0], dict) else None)
    )
    pq.write_table(pa.table({"image": column, "label": [0, 1]}), tmp_path / "odd.parquet")

    refused(tmp_path / "odd.parquet", message)


def test_options_are_checked(tmp_path: Path) -> None:
    """A slip is no option, and a folder whose name has brackets has none."""
    strange = tmp_path / "a [b=c]"
    strange.mkdir()

    assert open_dataset(f"folder:{strange}").name == "a [b=c]"
    with pytest.raises(UnknownNameError, match="'lable'; did you mean 'label'"):
        open_dataset(f"parquet:{strange}[lable=x]")
    with pytest.raises(UnknownNameError, match="option of folder"):
        open_dataset(f"folder:{tmp_path}[label=x]")
    for options, message in (
        ("crop=x", "crop has to be a number of pixels"),
        ("crop=0", "crop has to be"),
        ("crop", "cannot read 'crop'"),
        ("crop=1,crop=2", "given twice"),
    ):
        with pytest.raises(UsageError, match=message):
            open_dataset(f"folder:{tmp_path}[{options}]")


def test_a_tilde_is_a_home_where_there_is_no_such_path(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown user is no error of its own, wherever a path is given."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    fill(tmp_path, {f"{r}/{n}/1.png": png(pixels[0]) for r in ("~data", "home/x") for n in "ab"})
    fill(tmp_path, {"~data.txt": b"b\na\n", "~only": b"a/1.png"})

    assert open_dataset("folder:~/x").load("test").labels.tolist() == [0, 1]
    mapped = open_dataset("folder:~data[classes=~data.txt,only=~only]").load("test")
    assert mapped.labels.tolist() == [1]
    for written, message in (
        ("folder:~nobody-here", "there is no folder '~nobody-here'"),
        ("folder:~data[classes=~nobody-here]", "classes=~nobody-here cannot be read"),
        ("folder:~data[only=~nobody-here]", "only=~nobody-here. cannot be read"),
        ("~nobody-here", "unknown data set"),
    ):
        with pytest.raises(UsageError, match=message):
            open_dataset(written).load("test")
    assert with_classes("folder:~nobody-here", "f") == "folder:~nobody-here[classes=f]"
    monkeypatch.setenv("WINNOW_CACHE", "~nobody-here")
    assert cache_folder() == Path("~nobody-here")
