"""Data larger than memory: what is chosen is decoded, once, into a file that is not trusted."""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench.cli.figure import _examples
from bench.data import open_dataset, stored, subset
from bench.data.images import decode
from bench.data.mapped import MappedExamples
from bench.errors import DataError, InputNotice, UnknownNameError
from tests.data.conftest import fill, png

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.api import Examples

N = 9


@pytest.fixture
def images() -> list[Any]:
    """24 colour images of 6 x 5."""
    return [*np.random.RandomState(1).randint(0, 256, (24, 6, 5, 3), dtype=np.uint8)]


@pytest.fixture
def folder(tmp_path: Path, images: list[Any]) -> Path:
    """A folder of three classes with 12, 8 and 4 of them."""
    places = [f"{name}/{i}.png" for name, n in (("a", 12), ("b", 8), ("c", 4)) for i in range(n)]
    return fill(tmp_path / "set", dict(zip(places, map(png, images), strict=True)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of decoded images, into which whatever is chosen goes."""
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored, "MAPPED", 1)
    return tmp_path / "cache/images"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which images were decoded."""
    seen: list[str] = []

    def noted(image: Any, reading: Any) -> Any:
        seen.append(image.where)
        return decode(image, reading)

    monkeypatch.setattr("bench.data.stored.decode", noted)
    return seen


def chosen(folder: Path, n: int = N) -> Examples:
    """What a run takes."""
    return open_dataset(f"folder:{folder}").choose("test", n)


@pytest.mark.parametrize("n", [1, N, 24])
@pytest.mark.parametrize("kind", ["folder", "parquet", "batches"])
@pytest.mark.parametrize("mapped", [True, False])
def test_what_is_chosen_is_the_subset_of_all(
    folder: Path,
    images: list[Any],
    write_parquet: Callable[..., Path],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    n: int,
    kind: str,
    mapped: bool,
) -> None:
    """Whatever the source, in memory or in a file: inputs, labels, order and digest."""
    monkeypatch.setattr(stored, "MAPPED", 1 if mapped else 2**40)
    written = f"folder:{folder}"
    if kind == "batches":  # of a row each, in groups of two
        monkeypatch.setattr("bench.data.parquet._BATCH_ROWS", 1)
    if kind != "folder":
        labels = [i % 3 for i in range(24)]
        written = f"parquet:{write_parquet(folder / 'test.parquet', [*map(png, images)], labels)}"
    expected = subset(open_dataset(written).load("test"), n)

    examples = open_dataset(written).choose("test", n)

    assert isinstance(examples, MappedExamples) is mapped
    assert cache.exists() is mapped
    np.testing.assert_array_equal(expected.inputs.numpy(), examples.inputs.numpy())
    assert expected.labels.tolist() == examples.labels.tolist()
    assert (expected.digest, expected.shape, len(expected)) == (
        examples.digest,
        examples.shape,
        len(examples),
    )


def test_only_what_is_chosen_is_decoded(folder: Path, decoded: list[str]) -> None:
    """And a first image, for the size: a damaged one among the others is no hindrance."""
    (folder / "a/extra.png").write_bytes(b"none")
    chosen(folder, 3)

    assert len({*decoded}) == 3
    decoded.clear()
    assert len(_examples(f"folder:{folder}", 4)[1]) == 4
    assert len({*decoded}) == 4


def test_a_gray_choice_among_colour_is_read_as_colour(folder: Path, cache: Path) -> None:
    """The shape does not depend on which were chosen."""
    for path in folder.glob("*/*.png"):
        if path.name != "3.png":
            path.write_bytes(png(np.full((6, 5), 7, dtype=np.uint8)))
    with pytest.warns(InputNotice, match="21 of 24 images are gray"):
        expected = subset(open_dataset(f"folder:{folder}").load("test"), 3)
    for _ in range(2):  # decoded, and found in the cache
        with pytest.warns(InputNotice, match="of 3 images are gray and are read as colour"):
            examples = chosen(folder, 3)
        assert (examples.shape, examples.digest) == ((3, 6, 5), expected.digest)


def test_decoded_once_for_all_runs(folder: Path, cache: Path, decoded: list[str]) -> None:
    """The second time the file is there; a changed image makes another."""
    first = chosen(folder)
    decoded.clear()

    assert chosen(folder).digest == first.digest
    assert len(decoded) == 1  # for the size
    for path in folder.glob("*/*.png"):
        path.write_bytes(png(np.full((6, 5, 3), 7, dtype=np.uint8)))
    assert chosen(folder).digest != first.digest
    assert len([*cache.iterdir()]) == 2


@pytest.mark.parametrize("spoil", ["flip", "shorten", "note", "gone", "other", "deep"])
def test_a_damaged_file_is_made_anew(folder: Path, cache: Path, spoil: str) -> None:
    """It is believed as far as its digest goes, and who has it open keeps what was there."""
    first = chosen(folder)
    (place,) = cache.iterdir()
    data = bytearray((place / "images").read_bytes())
    if spoil == "flip":
        data[5] ^= 1
        (place / "images").unlink()
        (place / "images").write_bytes(data)
    elif spoil == "shorten":
        (place / "images").write_bytes(data[:-1])
    elif spoil == "note":
        (place / "done.json").write_text('{"done": 9}')
    elif spoil == "deep":
        (place / "done.json").write_text("[" * 100_000)
    elif spoil == "other":
        note = json.loads((place / "done.json").read_text()) | {"shape": [9, 3, 5, 6]}
        (place / "done.json").write_text(json.dumps(note))
    else:
        (place / "images").unlink()

    expected = subset(open_dataset(f"folder:{folder}").load("test"), N)
    assert chosen(folder).digest == expected.digest
    if spoil != "shorten":
        assert first.digest == expected.digest


def test_what_was_begun_is_gone_on_with(
    folder: Path, cache: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted after six of nine, the rest is decoded, and progress begins with six."""
    monkeypatch.setattr("bench.data.cache.STRIDE", 100)
    dataset, told = open_dataset(f"folder:{folder}"), []

    def interrupt(done: int, of: int) -> None:
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dataset.choose("test", N, on_progress=interrupt)
    decoded.clear()
    examples = dataset.choose("test", N, on_progress=lambda done, of: told.append((done, of)))

    assert told == [(6, 9), (7, 9), (8, 9), (9, 9)]
    assert len(decoded) == 1 + 3
    assert examples.digest == subset(dataset.load("test"), N).digest


def test_workers_open_the_same_file(folder: Path, cache: Path) -> None:
    """No image travels to them; a file put in its place is not taken for it."""
    examples = chosen(folder)
    sent = pickle.dumps(examples)

    assert len(sent) < 2000
    assert pickle.loads(sent).digest == examples.digest
    (place,) = cache.iterdir()
    (place / "images").unlink()
    (place / "images").write_bytes(b"\0" * examples.inputs.numel())
    with pytest.raises(DataError, match=r"images was removed or changed while a run uses it"):
        pickle.loads(sent)


def test_a_guest_cannot_write_the_examples(folder: Path, cache: Path) -> None:
    """What it gets is its own."""
    examples = chosen(folder)
    digest = examples.digest
    examples.take([0, 1]).inputs.zero_()

    assert examples.digest == digest == chosen(folder).digest


def test_a_full_disk_is_one_line(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how much is needed, and where else it could go; there is room, and it goes on."""
    import os

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"^the disk is full: cannot keep 9 .*WINNOW_CACHE"):
        chosen(folder)
    monkeypatch.undo()
    assert len(chosen(folder)) == N


def test_a_preset_is_what_it_stands_for(folder: Path) -> None:
    """One name in tables; what is given beside it counts."""
    preset = open_dataset(f"folder:{folder}[preset=imagenet]")
    assert preset.name == open_dataset(f"folder:{folder}[crop=224,resize=256]").name
    assert open_dataset(f"folder:{folder}[preset=imagenet,crop=192]").name == (
        "set[crop=192,resize=256]"
    )
    with pytest.raises(UnknownNameError, match=r"preset of images 'imagnet'; did you mean"):
        open_dataset(f"folder:{folder}[preset=imagnet]")


def test_a_published_list_says_what_is_evaluated(folder: Path, tmp_path: Path) -> None:
    """Labels stay; what it lists and is not there is named."""
    names = tmp_path / "list.txt"
    names.write_text("c/1.png\na/0.png\n\n")
    examples = open_dataset(f"folder:{folder}[only={names}]").load("test")

    assert (examples.labels.tolist(), examples.classes) == ([0, 2], 3)
    assert examples.name == "set[only=list.txt]"
    names.write_text("c/1.png\na/77.png\n")
    with pytest.raises(DataError, match=r"list.txt lists 2 .* 1 of them are not there: a/77.png"):
        open_dataset(f"folder:{folder}[only={names}]").load("test")
