"""Names in somebody's file of weights against those of a module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from bench.defenses.zoo.library import fit
from bench.defenses.zoo.preprocessing import Preprocessed
from bench.errors import CheckpointError


def standardised() -> Preprocessed:
    """A linear model behind a standardisation."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 2), nn.BatchNorm1d(2))
    return Preprocessed(net, [0.5, 0.4, 0.3], [0.1, 0.2, 0.3], (2, 2))


@pytest.mark.parametrize("prefix", ["", "model.", "module.", "module.model."])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model", "last"])
def test_prefixes_and_wrappers_are_seen_through(prefix: str, wrapper: str | None) -> None:
    """The tensors of the file arrive under the module's names; its constants are its own."""
    inner = standardised().model
    state: Any = {f"{prefix}{name}": tensor for name, tensor in inner.state_dict().items()}
    content = {wrapper: state, "epoch": 3} if wrapper else state
    module = standardised()

    found = fit(content, module)

    assert found.keys() == module.state_dict().keys()
    module.load_state_dict(found)
    for name, tensor in inner.state_dict().items():
        assert torch.equal(module.state_dict()[f"model.{name}"], tensor)
    assert torch.equal(module.mean.flatten(), torch.tensor([0.5, 0.4, 0.3]))


def test_constants_of_the_file_win() -> None:
    """Where the file has the standardisation, it is the one that was trained with."""
    state = standardised().state_dict()
    state["mean"] = torch.full((1, 3, 1, 1), 0.25)

    assert float(fit(state, standardised())["mean"].max()) == 0.25


def test_statistics_are_no_constants() -> None:
    """A file without the running mean does not get the module's zeros."""
    state = {k: v for k, v in standardised().state_dict().items() if "running_mean" not in k}

    assert "model.2.running_mean" not in fit(state, standardised())


def test_only_what_is_known_is_left_out() -> None:
    """What a file has beyond the module stays, so that loading it fails."""
    state = {**standardised().state_dict(), "head2.weight": torch.zeros(1), "odd": torch.zeros(1)}

    found = fit(state, standardised(), ignored=("head2.",))

    assert "odd" in found
    assert "head2.weight" not in found


def test_what_is_no_state_dict_is_refused() -> None:
    """By its type."""
    with pytest.raises(CheckpointError, match="got list"):
        fit([1, 2], standardised())


def test_preprocessing_is_in_the_model() -> None:
    """Standardised by channel, and resized by the same pixels' mean; gradients flow."""
    module = Preprocessed(nn.Flatten(), [0.5, 0.0, 0.0], [0.5, 1.0, 2.0], (1, 1))
    x = torch.rand(2, 3, 1, 1, requires_grad=True)
    expected = torch.stack([(x[:, 0] - 0.5) / 0.5, x[:, 1], x[:, 2] / 2], dim=1).flatten(1)

    assert torch.allclose(module(x), expected)
    larger = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
    assert torch.allclose(module(larger), torch.tensor([[0.0, 0.5, 0.25]]), atol=1e-6)
    (gradient,) = torch.autograd.grad(module(larger).sum(), larger)
    assert bool((gradient != 0).any())
