"""Data, runs and small weights for the defenses that bring models of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from bench.registry import defenses
from bench.run import Result, run
from bench.run.config import RunConfig
from bench.run.prepare import prepare

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

Shape = tuple[int, int, int]

#: A small model of RobustBench, as a user names it and as its data and norm settle the name.
SMALL = "robustbench:Rebuffi2021Fixing_R18_ddpm"
SETTLED = f"{SMALL}[dataset=cifar10,threat=Linf]"


def save(content: Any, path: Path) -> Path:
    """A torch file at a path whose folder may not be there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def image_folder(place: Path, *, classes: int = 10, side: int = 32) -> str:
    """One image of noise for each class, as `folder:PATH`."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for index in range(classes):
            folder = place / split / f"class{index:03d}"
            folder.mkdir(parents=True)
            pixels = generator.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "0.png")
    return f"folder:{place}"


def built(name: str, shape: Shape = (3, 32, 32), classes: int = 10) -> nn.Module:
    """A defense's module with the weights that its architecture starts from, always the same."""
    torch.manual_seed(0)
    defense = defenses.create(name)
    network = defense.network(shape=shape)
    return defense.build(network=network, shape=shape, classes=classes).eval()


def evaluated(defense: str, dataset: str, out: Path, **options: Any) -> Result:
    """A run of `fgsm` on ten examples, in this process."""
    given: dict[str, Any] = {
        "attacks": "fgsm",
        "epsilons": ("8/255",),
        "n": 10,
        "examine": False,
        "workers": 0,
        "device": "cpu",
        **options,
    }
    return run(prepare(RunConfig((defense,), dataset=dataset, out=out, **given)))
