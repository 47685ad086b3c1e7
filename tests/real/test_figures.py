"""Every kind of figure by one command, on MNIST."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.real.commands import run, winnow

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.whole

PAIR = "relu,kwta"


@pytest.fixture(scope="module", autouse=True)
def pair(mnist: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """ReLU and k-WTA, trained and run by one command each under what is now the current folder."""
    place = tmp_path_factory.mktemp("figures")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        winnow("train", "--defense", PAIR, "--dataset", mnist, "--device", "cpu", "--epochs", 1)
        ran = run(PAIR, mnist, "--attacks", "fgsm", "--n", 10, "--eps", "0.3", "--no-examine")
        yield ran.folder
    shutil.rmtree(place / "results" / "checkpoints")


@pytest.mark.parametrize(
    ("kind", "options", "rows"),
    [
        ("activations", ["--activation", "relu,lwta,kwta[k=3]"], 12),
        ("fit", ["--activation", PAIR], 3 * 4000 + 20),
        ("landscape", ["--defense", PAIR, "--steps", 2], 2 * 5 * 5),
        ("units", ["--defense", PAIR, "--n", 2, "--steps", 4], 2 * 2 * 2 * 4),
        ("curve", ["--attacks", "fgsm"], 2 * 2 * 2),
    ],
)
def test_figure(kind: str, options: list[str | int], rows: int, mnist: str, pair: Path) -> None:
    """A picture, the same as SVG, and a line of numbers for each point that is drawn."""
    data = ["--dataset", mnist, "--device", "cpu"] if kind in ("landscape", "units") else []
    runs = [pair] if kind == "curve" else []

    output = winnow("figure", kind, *runs, *options, *data)

    paths = [Path("results/figures") / f"{kind}.{ending}" for ending in ("png", "svg", "csv")]
    assert output.split() == [str(path) for path in paths]
    with Image.open(paths[0]) as picture:
        extrema = picture.convert("L").getextrema()
    assert extrema[0] != extrema[1], "it is all one colour"
    assert paths[1].read_text().rstrip().endswith("</svg>")
    assert len(list(csv.DictReader(paths[2].open()))) == rows
