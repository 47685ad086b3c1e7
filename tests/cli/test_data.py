"""What the command line says of data that leave a choice."""

from __future__ import annotations

import hashlib
import json
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.commands import call
from tests.data.conftest import fill, png

if TYPE_CHECKING:
    from pathlib import Path

#: The class is the number that the image's brightness says.
MODEL = """
import torch
def load():
    class Model(torch.nn.Module):
        def forward(self, x):
            return -((x.mean((1, 2, 3))[:, None] * 255 / 20 - torch.arange(12.0)) ** 2)
    return Model()
"""


def test_numbered_folders_beside_leftovers_give_the_right_figure_and_a_word(tmp_path: Path) -> None:
    """A model that is right on every class is so here, where the alphabet gave it one in six.

    Each choice is a note, once, and a file that is no data set is one line of error.
    """
    images = {f"data/val/{k}/1.png": png(np.full((8, 8), k * 20, np.uint8)) for k in range(12)}
    fill(
        tmp_path,
        images | {"data/__MACOSX/1.png": b"", "m.py": MODEL.encode(), "x.npy": b"\x93NUMPY"},
    )
    words = (
        "run",
        "--defense",
        "file:m.py:load",
        "--eps",
        "0.01",
        "--attacks",
        "fgsm",
        "--n",
        "12",
    )

    done = call(*words, "--no-examine", "--workers", "1", "--dataset", "folder:data", cwd=tmp_path)
    foreign = call(*words, "--dataset", "parquet:x.npy", cwd=tmp_path)

    assert (done.returncode, foreign.returncode) == (0, 2)
    assert "| load | 100.0 |" in done.stdout
    notes = [line for line in done.stderr.splitlines() if line.startswith("note: data: ")]
    assert len(notes) == 3
    for said in ("val is taken for it", "not read: __MACOSX", "in the order of their numbers"):
        assert sum(said in note for note in notes) == 1
    assert "error: 'x.npy' is no Parquet file: it is a NumPy array" in foreign.stderr


@pytest.mark.whole
def test_images_are_prepared_once_and_interrupted_preparation_goes_on(tmp_path: Path) -> None:
    """Four images of 16 MB each go into the cache; with a part of them there, the rest follows."""
    pixels = [np.full((2300, 2300, 3), 40 * i, np.uint8) for i in range(4)]
    root = fill(tmp_path / "set", {f"{i % 2}/{i}.png": png(each) for i, each in enumerate(pixels)})
    cache = {**os.environ, "WINNOW_CACHE": str(tmp_path / "cache")}

    def prepared(n: int = 4) -> str:
        words = ("prepare-data", "--dataset", f"folder:{root}", "--n", str(n))
        ended = call(*words, cwd=tmp_path, env=cache)
        assert (ended.returncode, ended.stderr) == (0, "")
        return ended.stdout

    said = prepared()
    assert "4 examples of set, 3x2300x2300, digest " in said
    (place,) = (tmp_path / "cache/images").iterdir()
    assert f"kept in {place / 'images'} (0.063 GB)" in said
    whole, note = (place / "images").read_bytes(), json.loads((place / "done.json").read_text())
    size = len(whole) // 4
    half = {"done": 2, "sha256": hashlib.sha256(whole[: 2 * size]).hexdigest()}
    (place / "done.json").write_text(json.dumps(note | half))
    (place / "images").write_bytes(whole[: 2 * size + 99])

    assert prepared() == said
    assert (place / "images").read_bytes() == whole
    assert "nothing is kept" in prepared(1)
