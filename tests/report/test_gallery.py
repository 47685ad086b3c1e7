"""The pictures of a page: which are shown, and that they are those of the run."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

import tests.plugins  # noqa: F401 - registers the attacks
from bench.data import open_dataset
from bench.record.results import critical_distances, read_cells
from bench.record.store import open_run
from bench.report.page.gallery import hang
from bench.run.page import write_page
from tests.report.markup import Markup
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from pathlib import Path

    from bench.record.adversarial import Found
    from bench.report.page.gallery import Gallery, Unperturbed


def smallest(folder: Path) -> dict[int, Found]:
    """The adversarial examples of the run."""
    store, record = open_run(folder)
    return store.smallest(record.defenses["relu"].key).all()


def gallery_of(folder: Path, unperturbed: Unperturbed, room: int = 10**7) -> Gallery:
    """The pictures of the run."""
    store, record = open_run(folder)
    return hang(record, read_cells(store, record)["relu"], smallest(folder), unperturbed, room)


def pixels(uri: str) -> np.ndarray:
    """The picture in a `data:` URI."""
    data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)))


def test_pictures_are_those_of_the_run(stored: Path) -> None:
    """Clean and adversarial pixels to 8 bits, the difference by its scale, and the margins."""
    examples = open_dataset("digits").choose("test", 20).inputs.numpy()
    found = smallest(stored)
    gallery = gallery_of(stored, lambda places: examples[list(places)])

    assert len(gallery.exhibits) == gallery.broken == len(found)
    for exhibit in gallery.exhibits:
        clean, moved = examples[exhibit.example], found[exhibit.example].input
        np.testing.assert_allclose(pixels(exhibit.clean), 255 * clean[0], atol=0.51)
        np.testing.assert_allclose(pixels(exhibit.adversarial), 255 * moved[0], atol=0.51)
        assert exhibit.scale == pytest.approx(1 / np.abs(moved - clean).max())
        lighter = (moved - clean)[0] > 0.01
        red, _, blue = pixels(exhibit.difference).astype(int).transpose(2, 0, 1)
        assert (red[lighter] > blue[lighter]).all()
        assert exhibit.margin is not None
        assert exhibit.margin <= 0
        assert exhibit.clean_margin is not None
        assert exhibit.clean_margin > 0
        assert exhibit.prediction != exhibit.label


def test_the_closest_come_first_and_the_hardest_took_the_most(stored: Path) -> None:
    """By the distances of the outcomes themselves."""
    store, record = open_run(stored)
    critical = critical_distances(read_cells(store, record)["relu"], "Linf")
    gallery = gallery_of(stored, lambda _: None)

    closest = [critical[each.example] for each in gallery.exhibits]
    assert closest == sorted(closest)
    hardest = [round(critical[index], 6) for index in gallery.hardest]
    assert hardest == sorted(hardest, reverse=True)
    assert len(closest) == (np.isfinite(critical) & (critical > 0)).sum()


def test_another_image_is_not_taken_for_the_unperturbed_one(stored: Path) -> None:
    """Its distance to the adversarial one is not what the run noted: it is left out."""
    examples = open_dataset("digits").choose("test", 21).inputs.numpy()
    gallery = gallery_of(stored, lambda places: examples[[p + 1 for p in places]])

    assert not gallery.whole
    assert {(each.clean, each.difference) for each in gallery.exhibits} == {("", "")}
    assert all(each.adversarial for each in gallery.exhibits)


def test_pictures_take_no_more_than_their_room(stored: Path) -> None:
    """The closest and the hardest are shown first, and the rest is said to be left out."""
    examples = open_dataset("digits").choose("test", 20).inputs.numpy()
    whole = gallery_of(stored, lambda places: examples[list(places)])
    some = gallery_of(stored, lambda places: examples[list(places)], 3000)

    assert 2 <= len(some.exhibits) < len(whole.exhibits)
    assert sum(each.bytes for each in some.exhibits) <= 3000
    assert {whole.exhibits[0].example, whole.hardest[0]} <= some.shown
    assert some.broken == whole.broken


@pytest.mark.parametrize("side", [4, 128])
def test_a_program_s_own_examples_are_shown(tmp_path: Path, side: int) -> None:
    """They lie in the folder of the run, and are read from there; large ones are unpacked."""
    examples = linear_examples(6, side)
    result = attack_only(
        Sum(), examples.inputs, examples.labels, epsilons=["0.05"], attacks="test-best",
        out=tmp_path,
    )  # fmt: skip
    assert result.folder is not None
    path = write_page({result.folder: result.summary}, tmp_path / "page.html")
    images = Markup.of(path.read_text(encoding="utf-8")).all("img")

    worst = next(iter(result.summary["defenses"].values()))["worst_case"]["0.05"]
    clean = next(iter(result.summary["defenses"].values()))["clean_correct"]
    broken = clean - round(worst["robust_accuracy"] * len(examples))
    assert len(images) == 3 * broken > 0
