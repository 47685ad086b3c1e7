"""Numbers that standardise inputs: the module's, the file's, or said to be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from bench.errors import CheckpointError, InputNotice
from bench.models.checkpoints import load_weights, weights_digest
from tests.models.published.files import loaded, refused, weights
from tests.models.test_checkpoints import network

if TYPE_CHECKING:
    from pathlib import Path


class Standardised(nn.Module):
    """The small network behind a mean and a standard deviation, kept in its `state_dict`."""

    def __init__(self, mean: float, seed: int) -> None:
        super().__init__()
        self.mean: torch.Tensor
        self.register_buffer("mean", torch.full((1,), mean))
        self.register_buffer("std", torch.full((1,), 0.25))
        self.net = network(seed=seed)


def test_numbers_that_standardise_inputs_may_be_the_modules_own(tmp_path: Path) -> None:
    """Weights of the network alone keep them; a file that has others replaces them."""
    torch.save(weights(), tmp_path / "bare.pt")
    torch.save(Standardised(0.1, 1).state_dict(), tmp_path / "whole.pt")
    module = Standardised(0.5, 9)

    load_weights(tmp_path / "bare.pt", module)
    assert (module.mean.item(), weights_digest(module.net)) == (0.5, weights_digest(network()))
    load_weights(tmp_path / "whole.pt", module)
    assert module.mean.item() == pytest.approx(0.1)
    assert weights_digest(module.net) == weights_digest(network(seed=1))


def test_an_attacker_model_is_taken_by_what_standardises_as_it_does(tmp_path: Path) -> None:
    """MadryLab's robustness keeps the network twice, and a normaliser outside it."""
    content = {
        "model": {
            **weights(prefix="module.model."),
            **weights(prefix="module.attacker.model."),
            "module.normalizer.new_mean": torch.full((1, 1, 1), 0.5),
            "module.normalizer.new_std": torch.full((1, 1, 1), 0.25),
        }
    }

    refused(
        tmp_path / "madry.pt", content,
        r"would fit: write PATH#model\.module\.model; .*new_mean.* standardise its inputs itself",
    )  # fmt: skip
    assert loaded(tmp_path / "madry.pt", content, "module.model") == 0
    module = Standardised(0.5, 9)
    with pytest.warns(InputNotice, match=r"under model\.module\.model are taken"):
        load_weights(tmp_path / "madry.pt", module)
    assert weights_digest(module.net) == weights_digest(network())
    with pytest.raises(CheckpointError, match=r"new_mean .as in an AttackerModel"):
        load_weights(tmp_path / "madry.pt", Standardised(0.4, 9))


def test_standardisation_that_the_module_lacks_is_said(tmp_path: Path) -> None:
    """A file that records mean and std was trained on other inputs than the data."""
    content = {"state_dict": weights(), "mean": [0.1, 0.2, 0.3], "std": (0.4, 0.5, 0.6)}
    module = network(seed=9)
    torch.save(content, tmp_path / "std.pt")

    with pytest.warns(InputNotice, match=r"standardised with mean \[0.1, 0.2, 0.3\] and std"):
        load_weights(tmp_path / "std.pt", module)
    module.register_buffer("mean", torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), persistent=False)
    module.std = [0.4, 0.5, 0.6]  # type: ignore[assignment]
    load_weights(tmp_path / "std.pt", module)
