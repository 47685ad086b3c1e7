"""A run of images in a file: the same figures as in memory, proofs compressed, and verified."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest
import safetensors.numpy
import torch

from bench.api import Examples
from bench.data import stored
from bench.data.mapped import MappedExamples
from bench.record.adversarial import Found, Packed, Smallest
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.run.verification import verify_run
from tests.data.conftest import fill, png

if TYPE_CHECKING:
    from pathlib import Path

MODEL = """
import torch

class Bright(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        dark = self.scale * (0.5 - x.mean(dim=(1, 2, 3)))
        return torch.stack([dark, -dark], dim=1)

def load():
    return Bright()
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Dark and bright images of 3 x 80 x 80, six of each, from one further to one near 0.5."""
    monkeypatch.setenv("WINNOW_CACHE", str(tmp_path / "cache"))
    random, images = np.random.RandomState(0), {}
    for i in range(6):
        for name, sign in (("0", -1), ("1", 1)):
            pixels = 127.5 + sign * (4 + 6 * i) + random.randint(-3, 4, (80, 80, 3))
            images[f"{name}/{i}.png"] = png(pixels.round().astype(np.uint8))
    fill(tmp_path / "set", images)
    (tmp_path / "model.py").write_text(MODEL)
    return RunConfig(
        defenses=(f"file:{tmp_path / 'model.py'}:load",),
        attacks="fgsm",
        dataset=f"folder:{tmp_path / 'set'}",
        epsilons=("16/255", "40/255"),
        n=12,
        shard_size=5,
        workers=0,
        examine=False,
        out=tmp_path / "memory",
    )


@pytest.mark.whole
def test_a_run_of_images_in_a_file_is_that_of_images_in_memory(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a worker that opens the file; its adversarial examples are compressed and verified."""
    inside = prepare(config)
    monkeypatch.setattr(stored, "MAPPED", 1)
    prepared = prepare(dataclasses.replace(config, workers=1, out=tmp_path / "file"))
    assert (type(inside.examples), type(prepared.examples)) == (Examples, MappedExamples)
    assert inside.id == prepared.id

    one, two = run(inside), run(prepared)

    outcomes = [each.outcomes_full.drop(columns="seconds", errors="ignore") for each in (one, two)]
    assert outcomes[0].equals(outcomes[1])
    (folder,) = (prepared.folder / "adversarial").iterdir()
    assert [p.read_bytes() for p in sorted(folder.iterdir())] == [
        p.read_bytes() for p in sorted((inside.folder / "adversarial").glob("*/*"))
    ]
    found = Smallest(folder).all()
    assert len(found) >= 4
    assert all(isinstance(item.input, Packed) for item in found.values())
    shown = [each.adversarial("40/255").inputs for each in (one, two)]
    assert torch.equal(*shown)
    assert "inputs" not in vars(two._pictures.examples)  # all of them, in memory
    model = config.defenses[0].removeprefix("file:")
    assert verify_run(prepared.folder, model=model, device="cpu").faults == []

    _forge(folder, found)
    faults = verify_run(prepared.folder, model=model, device="cpu").faults
    assert any("is damaged" in fault or "not finite" in fault for fault in faults), faults
    assert any("at Linf distance" in fault for fault in faults), faults


def _forge(folder: Path, found: dict[int, Found]) -> None:
    """Damage one compressed input, and give another the bytes of a third."""
    first, second, third = sorted(found)[:3]
    broken = found[first].input._replace(data=found[first].input.data[:-5])
    forged = found | {
        first: found[first]._replace(input=broken),
        second: found[second]._replace(input=found[third].input),
    }
    for path in folder.iterdir():
        assert safetensors.numpy.load_file(path)["packed"].dtype == np.uint8
        path.unlink()
    Smallest(folder).add(forged.values())
