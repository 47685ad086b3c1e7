"""Weights of the small network as others keep them, and what comes of loading their files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bench.api import Examples
from bench.errors import CheckpointError
from bench.models.checkpoints import load_weights, weights_digest
from bench.models.contenders import Lineup
from tests.models.test_checkpoints import network

Content = Any

NAMES = ("cat", "dog", "eel")


def weights(seed: int = 0, prefix: str = "") -> dict[str, torch.Tensor]:
    """The `state_dict` of the small network with a prefix before each name."""
    return {prefix + name: tensor for name, tensor in network(seed=seed).state_dict().items()}


def loaded(path: Path, content: Content, part: str = "") -> int:
    """The seed of the network whose weights are loaded from a file that holds this."""
    torch.save(content, path)
    module = network(seed=9)
    load_weights(Path(f"{path}#{part}") if part else path, module)
    digests = {weights_digest(network(seed=seed)): seed for seed in range(4)}
    return digests[weights_digest(module)]


def refused(path: Path, content: Content, message: str, part: str = "") -> None:
    """Loading fails with one plain line that matches, and leaves the module."""
    torch.save(content, path)
    module = network(seed=9)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_weights(Path(f"{path}#{part}") if part else path, module)
    assert re.fullmatch(r"[ -~…]+", str(caught.value))
    assert weights_digest(module) == weights_digest(network(seed=9))


def found(path: Path, class_names: tuple[str, ...]) -> str:
    """The origin of weights of `relu` for 8×8 images of these classes, named by `--checkpoint`."""
    examples = Examples.of(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), class_names, "pets")
    (contender,) = Lineup("digits", examples, {"relu": path}).asked(["relu"])
    return contender.record.checkpoint


def small(classes: int = 3) -> nn.Module:
    """The network of `relu` for 8×8 images."""
    from bench import registry

    defense = registry.defenses.create("relu")
    return defense.build(network="cnn", shape=(1, 8, 8), classes=classes)
