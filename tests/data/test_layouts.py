"""Folders of images as people have them: each read rightly, with a word, or refused."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torchvision.datasets import ImageFolder

from bench.data import open_dataset
from bench.errors import DataError, InputNotice
from tests.data.conftest import fill, png

if TYPE_CHECKING:
    from bench.api import Examples
    from bench.data import Split


def tree(root: Path, *names: str) -> Path:
    """Files by their relative paths: those that are called so are images, each of its own gray."""
    colours = iter(range(1, 256))
    image = {".png", ".jpeg"}
    for name in names:
        pixels = np.full((8, 8, 3), next(colours), dtype=np.uint8)
        data = png(pixels) if Path(name).suffix.lower() in image else b"none"
        fill(root / "pets", {name: data})
    return root / "pets"


def read(root: Path, said: str, *, options: str = "", split: Split = "test") -> Examples:
    """What is read, with a note that matches, in one line."""
    with pytest.warns(InputNotice) as caught:
        examples = open_dataset(f"folder:{root}{options}").load(split)
    notes = [str(warning.message) for warning in caught]
    assert any(re.search(said, note) for note in notes), notes
    assert not any("\n" in note for note in notes)
    return examples


def refused(root: Path, message: str, options: str = "") -> None:
    """Loading has to fail with one line that matches."""
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(f"folder:{root}{options}").load("test")
    assert "\n" not in str(caught.value)


def test_images_in_deeper_folders_count_as_in_torchvision(tmp_path: Path) -> None:
    """In the same order and with the same labels, and it is said."""
    names = ("b/1.png", "b/x/2.png", "a/10.png", "a/2.png", "a/sub/deep/3.png", "a/sub/1.png")
    root = tree(tmp_path, *names, "a/sub-1/4.png")

    examples = read(root, r"4 images lie deeper .* as in torchvision: a/sub/1.png, a/sub-1/4.png")

    theirs = ImageFolder(str(root))
    assert theirs.targets == examples.labels.tolist()
    expected = [np.asarray(image)[0, 0, 0] for image, _ in theirs]
    assert expected == (examples.inputs[:, 0, 0, 0] * 255).round().int().tolist()


def test_tiny_imagenet_is_read_by_class(tmp_path: Path) -> None:
    """Its training images lie in class/images; tables beside them are named."""
    root = tree(tmp_path, "n1/images/1.JPEG", "n2/images/1.JPEG", "n1/n1_boxes.txt")

    assert read(root, "passed over: n1/n1_boxes.txt").labels.tolist() == [0, 1]


def test_a_table_of_classes_is_not_taken_for_folders(tmp_path: Path) -> None:
    """Tiny-imagenet's val and test hold one folder `images`, which is no class."""
    names = ("train/n1/images/1.JPEG", "train/n2/images/1.JPEG", "val/images/1.JPEG")

    refused(tree(tmp_path, *names), "train and test have no class in common .*val_annotations.txt")


def test_leftovers_of_systems_are_no_classes(tmp_path: Path) -> None:
    """They are passed over and named, wherever they lie."""
    names = ("__MACOSX/cat/._1.png", ".DS_Store", "cat/.DS_Store", "cat/Thumbs.db", "cat/._1.png")
    hidden = (".ipynb_checkpoints/1.png", "dog/.ipynb_checkpoints/1.png", "@eaDir/dog/1.png")
    root = tree(tmp_path, "cat/1.png", "dog/1.png", *names, *hidden)

    examples = read(root, r"8 files or folders .* passed over: .DS_Store, .ipynb_checkpoints, @eaD")

    assert (examples.labels.tolist(), examples.class_names) == ([0, 1], ("cat", "dog"))


@pytest.mark.parametrize("pattern", ["{}", "class_{}", "{}.bird"])
def test_numbered_classes_are_in_the_order_of_their_numbers(tmp_path: Path, pattern: str) -> None:
    """And it is said that torchvision would take another order."""
    names = [pattern.format(number) for number in range(12)]
    root = tree(tmp_path, *(f"{name}/1.png" for name in reversed(names)))

    examples = read(root, r"order of their numbers .*, where torchvision's ImageFolder takes")

    assert examples.class_names == tuple(names)
    assert examples.labels.tolist() == list(range(12))
    assert (examples.inputs[:, 0, 0, 0] * 255).round().tolist() == list(range(12, 0, -1))


def test_padded_numbers_need_no_word(tmp_path: Path) -> None:
    """Both orders are the same, and names of synsets have no gaps to speak of."""
    padded = tree(tmp_path / "padded", *(f"{number:02}/1.png" for number in range(12)))
    synsets = tree(tmp_path / "synsets", "n01440764/1.png", "n02102040/1.png")
    words = tree(tmp_path / "words", "a 1/1.png", "a b/1.png", "a1/1.png", "a-b/1.png", "é/1.png")

    assert open_dataset(f"folder:{words}").load("test").class_names[:2] == ("a 1", "a b")
    assert open_dataset(f"folder:{padded}").load("test").class_names[9:] == ("09", "10", "11")
    assert open_dataset(f"folder:{synsets}").load("test").labels.tolist() == [0, 1]


def test_gaps_between_numbers_are_said(tmp_path: Path) -> None:
    """The label of folder 217 is 1, which nobody would guess."""
    root = tree(tmp_path, "0/1.png", "217/1.png", "482/1.png")

    assert read(root, r"have gaps \(0, 217, 482\): a label is the place").labels.tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize("called", ["val", "validation", "valid", "dev", "Val"])
def test_validation_folders_stand_in_for_test(tmp_path: Path, called: str) -> None:
    """ImageNet and Imagenette have no other."""
    root = tree(
        tmp_path, "train/a/1.png", "train/b/1.png", f"{called}/a/1.png", f"{called}/b/1.png"
    )

    examples = read(root, f"there is no test split; {called} is taken for it")

    assert (examples.inputs[:, 0, 0, 0] * 255).round().tolist() == [3, 4]
    assert len(read(root, "no test split", split="train")) == 2


@pytest.mark.parametrize("wrapper", ["data", "imagenette2-160"])
def test_the_one_folder_around_the_splits_is_gone_into(tmp_path: Path, wrapper: str) -> None:
    """As archives and clones have it; a folder around classes alone may be a class itself."""
    names = [f"{wrapper}/{part}/{name}/1.png" for part in ("train", "val") for name in "ab"]
    root = tree(tmp_path, *names, "README.md")

    examples = read(root, rf"its splits lie in {wrapper}/")
    inner = read(root / wrapper, "no test split; val is taken for it")
    assert examples.digest == inner.digest
    with pytest.raises(DataError, match="one class cannot be told apart: its folders are a, b"):
        open_dataset(f"folder:{tree(tmp_path / 'x', 'data/a/1.png', 'data/b/1.png')}").load("test")


def test_a_table_of_labels_is_said_not_to_be_read(tmp_path: Path) -> None:
    """As Hugging Face's image folders have one; without it nothing says what images show."""
    with pytest.raises(DataError, match=r"in no class folders, and metadata\.csv is not read"):
        open_dataset(f"folder:{tree(tmp_path, 'test/1.png', 'test/metadata.csv')}").load("test")


def test_a_split_can_be_named(tmp_path: Path) -> None:
    """Then it is evaluated, and what is not read is said."""
    splits = ("train", "val", "test")
    root = tree(tmp_path, *(f"{split}/{name}/1.png" for split in splits for name in "ab"))

    values = {
        options: (read(root, said, options=options).inputs[:, 0, 0, 0] * 255).round().tolist()
        for options, said in (("", "not read: val"), ("[split=val]", "not read: test"))
    }

    assert values == {"": [5, 6], "[split=val]": [3, 4]}
    assert open_dataset(f"folder:{root}[split=val]").name == "pets[split=val]"
    refused(root, "has no split 'holdout'; it has test, train, val", "[split=holdout]")


def test_two_folders_for_one_split_are_refused(tmp_path: Path) -> None:
    """Nobody can tell which is meant."""
    root = tree(tmp_path, *(f"{split}/{name}/1.png" for split in ("val", "valid") for name in "ab"))

    refused(root, r"holds val and valid, and each could be the validation split; .*\[split=val\]")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a/1.png", "b/1.png", "docs/read.me"), "1 folders .* hold no images: docs; every folder"),
        (("a/1.png", "b/1.png", "-1/1.png"), "images without a label, as -1 says"),
        (("train/a/1.png", "train/b/.1.png", "test/a/1.png"), "hold no images: b; every folder"),
        (("1.png", "2.png", "labels.csv"), r"no images in the folders .*a table that names them"),
        (("train/1.png", "test/1.png"), "images in test, train .* are in no class folders"),
        (
            ("fold1/a/1.png", "fold1/b/1.png", "fold2/a/1.png", "fold2/b/1.png"),
            r"fold1, fold2 of .* hold the same folders \(a, b\), .*folder:.*pets/fold1, or say by",
        ),
        (
            ("p/p/1.png", *(f"s_{p}/s_{p}/{n}/1.png" for p in ("train", "test") for n in "ab")),
            r"s_test, s_train of .* the same folders .* such as folder:.*pets/s_test/s_test, or",
        ),
        (("bus/1.png", "train/x/1.png", "train/y/1.png"), r"a split \(train\) and other folders"),
        (
            ("zip/a/1.png", "zip/b/1.png"),
            "one class folder, 'zip'.*did you mean folder:",
        ),
        (("train/a/1.png", "train/b/1.png", "test/1.png"), "no test split.*test without class fol"),
        (("train/Cat/1.png", "train/b/1.png", "test/cat/1.png"), "'Cat' and 'cat' differ in spell"),
        (("cat/1.png", "Cat/1.png"), "the folders 'Cat' and 'cat', which differ in spelling alone"),
    ],
)
def test_what_cannot_be_told_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    """Empty classes, images without classes, and folders that could be splits or classes."""
    refused(tree(tmp_path, *names), message)


def test_classes_may_hold_the_same_folders(tmp_path: Path) -> None:
    """One alone, as tiny-imagenet's, or several where a file says that they are classes."""
    root = tree(tmp_path, *(f"{n}/{below}/1.png" for n in ("cat", "dog") for below in "ab"))
    (tmp_path / "all.txt").write_text("dog\ncat\n")

    found = read(root, "4 images lie deeper", options=f"[classes={tmp_path / 'all.txt'}]")
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """Where its images lie in it as the others' do in theirs."""
    root = tree(tmp_path, "bus/1.png", "car/1.png", "train/1.png")

    assert open_dataset(f"folder:{root}").load("test").class_names == ("bus", "car", "train")


def test_what_is_called_train_is_evaluated_with_a_word(tmp_path: Path) -> None:
    """Nobody evaluates on training images by accident."""
    root = tree(tmp_path, "cat/1.png", "dog/1.png").rename(tmp_path / "pets_train")

    assert len(read(root, "the folder is called pets_train, and all of it is evaluated")) == 2


def test_names_are_shown_in_one_line(tmp_path: Path) -> None:
    """Those of files that break it or are no text are spelled out; such classes are refused."""
    root = tree(tmp_path, "a/1.png", "b/1.png", "a/two\nlines.txt")
    (root / os.fsdecode(b"\xff.txt")).write_bytes(b"")

    read(root, r"passed over: \\udcff.txt, a/two\\nlines.txt")

    refused(tree(tmp_path, "a\nb/1.png"), r"the folder 'a\\nb' has a name that no table can show")


def test_folders_beside_the_splits_are_named(tmp_path: Path) -> None:
    """Neither they nor files there are silently left."""
    splits = ("train/a/1.png", "train/b/1.png", "test/a/1.png", "test/b/1.png")

    assert len(read(tree(tmp_path, *splits, "more/x.png", "w.txt"), "not read: more, w.txt")) == 2


def test_names_are_one_in_either_spelling_of_unicode(tmp_path: Path) -> None:
    """A folder zipped on a Mac spells ä as two characters."""
    spellings = [unicodedata.normalize(form, "Käse") for form in ("NFC", "NFD")]
    root = tree(tmp_path, *(f"{split}/{name}/1.png" for split, name in (
        ("train", spellings[0]), ("train", "b"), ("test", spellings[1]), ("test", "b")
    )))  # fmt: skip

    examples = open_dataset(f"folder:{root}").load("test")

    assert (examples.class_names, examples.labels.tolist()) == ((spellings[0], "b"), [0, 1])


@pytest.mark.parametrize("kind", ["loop", "dangling", "fifo"])
def test_what_is_no_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A link into its own folder, one to nothing, and a pipe, which would hang."""
    root = tree(tmp_path, "a/1.png", "b/1.png")
    if kind == "fifo":
        os.mkfifo(root / "b/x.png")
    else:
        (root / "b/x.png").symlink_to(root / "b" if kind == "loop" else root / "nothing")

    refused(root, "twice, also as .*x.png': its" if kind == "loop" else "x.png' is no file, or a l")


@pytest.mark.parametrize(
    ("link", "target", "message"),
    [
        ("c", "nothing", r"pets/c' is a link to nothing, perhaps to a folder of images"),
        ("c", "a", r"links lead to the folder '.*pets/a' twice, also as '.*pets/c'"),
        ("b/deep", "a", r"links lead to the folder '.*pets/a' twice, also as '.*pets/b/deep'"),
        ("c", "elsewhere", None),
        ("c.png", "nothing", None),
    ],
)
def test_links_that_change_classes_are_refused(
    tmp_path: Path, link: str, target: str, message: str | None
) -> None:
    """A class would be missing, or its images count under two labels; other links are followed."""
    root = tree(tmp_path, "a/1.png", "b/1.png")
    fill(tmp_path / "elsewhere", {"1.png": png(np.zeros((8, 8, 3), np.uint8))})
    (root / link).symlink_to((tmp_path if target == "elsewhere" else root) / target)

    if message:
        refused(root, message)
    elif target == "elsewhere":
        assert open_dataset(f"folder:{root}").load("test").labels.tolist() == [0, 1, 2]
    else:
        assert len(read(root, "passed over: c.png")) == 2


def test_gray_among_colour_is_colour(tmp_path: Path) -> None:
    """As Pillow converts it, whichever comes first; the family follows."""
    gray = np.arange(32 * 32, dtype=np.uint16).reshape(32, 32).astype(np.uint8)
    colour = np.stack([gray, gray.T, gray[::-1]], axis=2)
    root = fill(tmp_path, {"a/1.png": png(gray), "a/2.png": png(colour), "b/1.png": png(gray)})

    examples = read(root, "2 of 3 images are gray and are read as colour")

    expected = np.stack([np.stack([gray] * 3, axis=2), colour, np.stack([gray] * 3, axis=2)])
    np.testing.assert_array_equal(expected, examples.inputs.permute(0, 2, 3, 1).numpy() * 255)
    assert open_dataset(f"folder:{root}").family == "cifar10"


def test_sizes_are_made_one_as_by_torchvision(tmp_path: Path) -> None:
    """Resized by the shorter side, and cut from the middle, to the last bit."""
    from torchvision.transforms import CenterCrop, Compose, Resize

    random = np.random.RandomState(0)
    shapes = {
        "a/1.png": (20, 31, 3),
        "a/2.png": (33, 17, 3),
        "b/1.png": (16, 16),
        "b/2.png": (19, 40),
    }
    images = {k: png(random.randint(0, 256, v, dtype=np.uint8)) for k, v in shapes.items()}
    root = fill(tmp_path, images)

    refused(root, r"a/2.png is 3x33x17 but .* 3x20x31; .*folder:PATH\[resize=17,crop=17\]")
    refused(root, "b/1.png is 16x16, too small to cut 17x17", "[crop=17]")
    examples = read(root, "2 of 4 images are gray", options="[resize=16,crop=14]")

    steps = Compose([Resize(16), CenterCrop(14)])
    theirs = [np.asarray(steps(image)) for image, _ in ImageFolder(str(root))]
    expected = torch.from_numpy(np.stack(theirs)).permute(0, 3, 1, 2) / 255
    assert torch.equal(expected, examples.inputs)
    digests = [
        open_dataset(f"folder:{root}{options}").digest("test") for options in ("", "[resize=16]")
    ]
    assert len(set(digests)) == 2
