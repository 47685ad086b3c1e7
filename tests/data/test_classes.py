"""A model's classes by name: a folder or file that has some of them gets the model's labels."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.data import open_dataset
from bench.data.classes import ordered, read_classes
from bench.data.reading import with_classes
from bench.errors import DataError, InputNotice, ModelError, UsageError
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from tests.commands import call
from tests.data.conftest import Pixels, WriteParquet, fill, png

if TYPE_CHECKING:
    from bench.api import Examples

SYNSETS = (
    "n01 zero\nn02102040 English springer, springer\nn01440764 tench, Tinca tinca\nn00000002\n"
)
#: The same four classes, in the forms in which they are found.
FORMS = {
    "synset_words.txt": SYNSETS,
    "synsets.txt": "n01\nn02102040\r\nn01440764\n\nn00000002\n",
    "list.json": json.dumps(["n01", ["n02102040", "springer"], ["n01440764", "tench"], "n2"]),
    "index.json": json.dumps({"2": ["n01440764", "tench"], "0": "n01", "1": "n02102040", "3": "x"}),
    "class_to_idx.json": json.dumps({"n01440764": 2, "n02102040": 1, "n01": 0, "x": 3}),
}


def subset(root: Path, pixels: Pixels, *names: str) -> Path:
    """A folder with an image of each of some classes."""
    return fill(root / "few", {f"{n}/1.png": png(p) for n, p in zip(names, pixels, strict=False)})


def load(written: str) -> Examples:
    """The test split."""
    return open_dataset(written).load("test")


@pytest.mark.parametrize("form", FORMS)
def test_a_folder_with_some_classes_gets_the_models_labels(
    tmp_path: Path, pixels: Pixels, form: str
) -> None:
    """From text with a class a line, or from JSON as it is around; there are as many classes."""
    root = subset(tmp_path, pixels, "n01440764", "n02102040")
    (tmp_path / form).write_text(FORMS[form], encoding="utf-8-sig")

    examples = load(f"folder:{root}[classes={tmp_path / form}]")

    assert (examples.labels.tolist(), examples.classes) == ([1, 2], 4)
    assert examples.class_names[1:3] == ("n02102040", "n01440764")
    assert examples.name == f"few[classes={form}]"


def test_names_besides_the_synset_serve_as_well(tmp_path: Path, pixels: Pixels) -> None:
    """Imagenette's own names, and one class alone."""
    (tmp_path / "all.txt").write_text(SYNSETS)

    both = load(
        f"folder:{subset(tmp_path, pixels, 'tench', 'springer')}[classes={tmp_path}/all.txt]"
    )
    one = load(f"folder:{subset(tmp_path / 'o', pixels, 'tench')}[classes={tmp_path}/all.txt]")

    assert (both.labels.tolist(), one.labels.tolist()) == ([1, 2], [2])


@pytest.mark.parametrize(
    "content",
    [
        "ant,2\nbee,1\ncat,0\n",
        "2,ant\n0,cat\n1,bee",
        '"ant";"2"\n"cat";"0"\n"bee";"1"\n',
        "ant\t2\nbee\t1\ncat\t0",
        "ant, emmet, 2\nbee, 1\ncat, puss, 0",
        "2 ant, emmet\n1 bee\n0 cat\n",
        "2: ant\n1: bee\n0: cat\n",
        "ant 2\nbee 1\ncat 0\n",
        "n00000003 2 ant\nn00000002 1 bee\nn00000001 0 cat\n",
        "cat\nbee\nant\n",
    ],
)
def test_numbers_beside_names_are_their_indices(
    tmp_path: Path, pixels: Pixels, content: str
) -> None:
    """In columns, before or behind the names, in whatever order the lines are."""
    (tmp_path / "f.txt").write_text(content)
    root = subset(tmp_path, pixels, "ant", "bee", "cat")

    examples = load(f"folder:{root}[classes={tmp_path}/f.txt]")
    assert examples.labels.tolist() == [0, 1, 2]
    called = read_classes(tmp_path / "f.txt")
    assert ["ant" in names for names in called] == [False, False, True]
    assert ["cat" in names for names in called] == [True, False, False]


@pytest.mark.parametrize(
    "names",
    [
        ["Boeing 707", "Airbus 300"],
        ["class 1", "class 0"],
        ["1", "0"],
        ["one, 1", "no"],
        ["n01440764 tench, Tinca", "n02102040 springer"],
        ["1 2", "0 2"],
        ["0 number", "1 letter"],
    ],
)
def test_numbers_in_names_are_no_indices(tmp_path: Path, names: list[str]) -> None:
    """Lines are in the order of the logits then."""
    (tmp_path / "f.txt").write_text("\n".join(names))

    found = read_classes(tmp_path / "f.txt")
    assert all(name in " ".join(called) for name, called in zip(names, found, strict=True))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "cat\ndog\n",
            "few.* has 1 of 2 classes .* not among those of f.txt: eel; those are cat, d",
        ),
        ("cat\neel\ncat\n", "f.txt has 'cat' more than once, as class 0 and 2"),
        ("cat, eel\nx\n", "two of the classes cat, eel are one class of f.txt"),
        ("cat,1\neel,2\n", r"numbers beside the names .cat,1; eel,2., .* are not 0 … 1, each once"),
        ("n00000001 1 cat\nn00000002 2 eel\n", r"numbers beside the names .n00000001 1 cat;"),
        ("class\ncat\neel\n", "line 1 of .* is a heading .'class'."),
        ("Unnamed: 0,name\n0,cat\n1,eel\n", "line 1 of .* is a heading"),
        ("cat,1,0\neel,0,1\n", "numbers beside the names"),
        ("cat,0\neel,0\n", "numbers beside the names"),
        ("cat 1\neel 2\n", "numbers beside the names"),
        ("3 cat\n1 eel\n", "numbers beside the names"),
        ("name,index\ncat,0\neel,1\n", r"line 1 of classes=.*f.txt is a heading .'name,index'."),
        ("\nclass id\ncat 0\neel 1\n", r"line 2 of .* is a heading .*remove it, or write a JSON"),
        (",name\n0,cat\n1,eel\n", "line 1 of .* is a heading"),
        ("# pets\ncat\neel\n", "line 1 of .*f.txt is a comment .'# pets'., where every line is a"),
        ("cat\n#eel\neel\n", "line 2 of .* is a comment"),
        ("\n", "is empty; write a class a line"),
        ('{"1": "cat", "2": "eel"}', "names by index 0, 1, 2"),
        ('["cat", 3]', "a JSON list of names"),
        ("[" * 100_000, "a JSON list of names"),
    ],
)
def test_files_of_classes_that_do_not_tell_are_refused(
    tmp_path: Path, pixels: Pixels, content: str, message: str
) -> None:
    """A class that is missing, there twice or one with another, and other files."""
    (tmp_path / "f.txt").write_text(content)

    with pytest.raises(DataError, match=message):
        load(f"folder:{subset(tmp_path, pixels, 'cat', 'eel')}[classes={tmp_path}/f.txt]")


def test_a_file_of_classes_has_to_be_readable(tmp_path: Path, pixels: Pixels) -> None:
    """There, and text."""
    (tmp_path / "f.txt").write_bytes(b"\xff\xfe\xfa")
    root = subset(tmp_path, pixels, "cat", "eel")

    with pytest.raises(DataError, match=r"f.txt cannot be read \(it is not UTF-8\)"):
        load(f"folder:{root}[classes={tmp_path}/f.txt]")
    with pytest.raises(DataError, match=r"cannot be read \(No such file"):
        load(f"folder:{root}[classes={tmp_path}/none.txt]")


@pytest.mark.parametrize("pattern", ["{}_{}", "{0}. {1}", "{}.0", "{}{}s"])
def test_names_that_begin_with_numbers_are_in_their_order(pattern: str) -> None:
    """Whatever stands behind, as in `0_airplane`; each begins with another number."""
    names = [pattern.format(number, chr(120 - number)) for number in range(12)]

    found, sentence = ordered(reversed(names))

    assert found == tuple(names)
    assert "in the order of their numbers" in sentence


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            [f"v2_class{number}" for number in range(12)],
            r"alphabet's order \(…, v2_class10, .* and 6 more\), not in that "
            r"of the numbers in their names \(…, v2_class2, v2_class3, .*\[classes=FILE\]",
        ),
        ([*map(str, range(11)), "other"], r"order \(…, 10, 2, 3, .* names \(…, 2, 3, 4, 5 and"),
        (["C-130", "C-47", "Cessna 172"], r"order \(C-130, C-47, C.* names \(C-47, C-130, C"),
        (["0_cat", "0_dog", "10_eel", "9_fox"], r"order \(…, 10_eel, 9_fox\)"),
    ],
)
def test_the_alphabet_s_order_of_numbers_is_said(names: list[str], said: str) -> None:
    """It is kept, as torchvision has it, where numbers among other things do not decide."""
    found, sentence = ordered(names)

    assert found == tuple(sorted(names))
    assert re.search(said, sentence), sentence


@pytest.mark.parametrize("kind", ["named", "text", "bare"])
def test_parquet_files_get_the_models_labels(
    tmp_path: Path, pixels: Pixels, write_parquet: WriteParquet, kind: str
) -> None:
    """By the names in the metadata or in the column; numbers without names are the model's."""
    names = ("tench", "springer") if kind == "named" else None
    labels: list[Any] = ["tench", "springer"] if kind == "text" else [0, 1]
    path = write_parquet(
        tmp_path / "few.parquet", [*map(png, pixels[:2])], labels, class_names=names,
        label_type="string" if kind == "text" else None,
    )  # fmt: skip
    (tmp_path / "all.txt").write_text(SYNSETS)

    written = f"parquet:{path}[classes={tmp_path}/all.txt]"
    said = {"named": "has 2 of the 4 classes", "bare": "its labels are places in all.txt"}
    if kind == "text":
        examples = load(written)
    else:
        with pytest.warns(InputNotice, match=said[kind]):
            examples = load(written)

    assert examples.labels.tolist() == ([0, 1] if kind == "bare" else [2, 1])
    assert examples.classes == 4


@pytest.mark.whole
def test_classes_can_be_an_option_of_the_command(tmp_path: Path, pixels: Pixels) -> None:
    """The same examples as with the file in brackets."""
    root = subset(tmp_path, pixels, "n02102040", "n01440764")
    (tmp_path / "all.txt").write_text(SYNSETS)
    named = load(f"folder:{root}[classes={tmp_path / 'all.txt'}]")

    done = call("prepare-data", "--dataset", f"folder:{root}", "--classes", tmp_path / "all.txt")
    assert (done.returncode, named.digest in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("folder:val", "folder:val[classes=all.txt]"),
        ("folder:val[split=dev]", "folder:val[split=dev,classes=all.txt]"),
        ("folder:val[classes=x]", None),
        ("cifar10", None),
    ],
)
def test_the_option_is_added_to_what_is_written(text: str, expected: str | None) -> None:
    """Refused where there are classes already, or nothing to read them for."""
    assert with_classes(text, "") == text
    if expected is None:
        with pytest.raises(UsageError, match="--classes"):
            with_classes(text, "all.txt")
    else:
        assert with_classes(text, "all.txt") == expected


@pytest.mark.whole
def test_imagenet_is_known_by_its_ids(tmp_path: Path, pixels: Pixels) -> None:
    """By WordNet's ids or names, in the order in which torchvision's weights have them."""
    pytest.importorskip("timm")
    from torchvision.models import ResNet18_Weights

    categories = ResNet18_Weights.DEFAULT.meta["categories"]
    root = subset(tmp_path, pixels, "n02102040", "n01440764", "n03445777")
    examples = load(f"folder:{root}[classes=imagenet]")

    assert examples.classes == len(categories) == 1000
    assert [categories[label] for label in examples.labels] == [
        *("tench", "English springer", "golf ball")
    ]
    called = read_classes(Path("imagenet"))
    assert sum(name in names for name, names in zip(categories, called, strict=True)) > 950


MODEL = """
import torch
def load():
    class Brightest(torch.nn.Module):  # class 2 of five where the first pixel is dark, else class 4
        def forward(self, x):
            dark = 0.5 - x[:, 0, 0, 0]
            return torch.stack([dark * 0 - 9, dark * 0 - 9, dark, dark * 0 - 9, -dark], dim=1)
    return Brightest()
"""


def test_a_model_of_more_classes_is_evaluated_on_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused with the advice, and right with the mapping: one of three images is wrong.

    What was passed over stands in the record and in the leaderboard.
    """
    dark, light = (png(np.full((8, 8, 3), v, dtype=np.uint8)) for v in (0, 255))
    fill(tmp_path / "few", {"cat/1.png": dark, "cat/2.png": light, "dog/1.png": light, "x.md": b""})
    (tmp_path / "all.txt").write_text("ant\nbee\ncat\neel\ndog\n")
    (tmp_path / "m.py").write_text(MODEL)
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        defenses=("file:m.py:load",), attacks="fgsm", dataset="folder:few[classes=all.txt]",
        epsilons=("0.1",), n=3, workers=1, examine=False, out=tmp_path / "runs",
    )  # fmt: skip

    with pytest.warns(InputNotice, match="passed over: x.md"):
        prepared = prepare(config)
    result = run(prepared)

    assert result.summary["defenses"]["file:m.py:load"]["clean_accuracy"] == pytest.approx(2 / 3)
    assert len(prepared.dataset.notes) == 1
    assert [*prepared.dataset.notes] == result.summary["data_notes"]
    assert f"Data: {prepared.dataset.notes[0]}." in (tmp_path / "runs/leaderboard.md").read_text()
    with pytest.warns(InputNotice):
        prepared = prepare(dataclasses.replace(config, dataset="folder:few"))
    with pytest.raises(ModelError, match=r"got \(3, 5\).*folder:PATH\[classes=FILE\]"):
        run(prepared)
