"""What the command line says of data that leave a choice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

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
