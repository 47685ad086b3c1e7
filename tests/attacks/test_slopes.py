"""Layers that do not rise as their gradient says: which they are, their slopes, and what breaks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.api import Flag
from bench.attacks.blocks.slopes import DISTANCES, misleads, slopes
from bench.threat import Norm
from tests.attacks.worlds import broken, linear_problem, pose, solve


class Unit(nn.Module):
    """A layer of its own from a function of each unit."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Shape of `x`."""
        out: Tensor = self.function(x)
        return out


class StraightThrough(torch.autograd.Function):
    """Rounds, and passes the gradient on: what it says is how it rises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Whole numbers."""
        return x.round()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """As it comes."""
        return gradients[0]


HONEST = [
    nn.ReLU(), nn.LeakyReLU(0.2), nn.ReLU6(), nn.GELU(), nn.SiLU(), nn.Tanh(), nn.Hardswish(),
    nn.Softmax(dim=1), nn.LayerNorm(8, elementwise_affine=False), nn.InstanceNorm2d(3),
    nn.MaxPool2d(3, 1, 1), nn.AvgPool2d(3, 1, 1), nn.Identity(), nn.Dropout(0.5).eval(),
]  # fmt: skip
FUNCTIONS = {
    "straight-through": (StraightThrough.apply, False),
    "waves": (lambda x: torch.sin(3 * x), False),
    "square": (lambda x: x * x, False),
    "noise": (lambda x: x + 0.1 * torch.randn_like(x), False),
    "rounded": (lambda x: (3 * x).round() / 3, True),
    "sign": (torch.sign, True),
    "sawtooth": (lambda x: x - x.floor(), True),
    "detached": (lambda x: x.detach() + 0, True),
    "steps of a ReLU": (lambda x: (4 * x.relu()).round() / 4, True),
}


@pytest.mark.parametrize("rows", [1, 20])
def test_layers_that_rise_as_they_say_are_told_from_those_that_do_not(rows: int) -> None:
    """On one image and on many, whichever they are."""
    x = torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    assert not [type(layer).__name__ for layer in HONEST if misleads(layer, x)]
    found = {name: misleads(Unit(function), x) for name, (function, _) in FUNCTIONS.items()}
    assert found == {name: wanted for name, (_, wanted) in FUNCTIONS.items()}


def test_what_raises_is_left_alone() -> None:
    """A layer may want what only its model gives it."""

    def refuse(x: Tensor) -> Tensor:
        raise RuntimeError(x.shape)

    assert not misleads(Unit(refuse), torch.rand(2, 4))


def test_slopes_are_central_differences_of_each_unit() -> None:
    """Of units that answer for themselves alone whatever the signs, written out in a loop."""
    x = torch.randn(4, 30, generator=torch.Generator().manual_seed(5))
    found = slopes(Unit(lambda x: (2 * x).round() / 2), x)
    for row, slope in zip(x, found, strict=True):
        steps = [float(row.std(correction=0)) * distance for distance in DISTANCES]
        rises = [
            [(round(2 * (u + s)) / 2 - round(2 * (u - s)) / 2) / (2 * s) for s in steps]
            for u in row.tolist()
        ]
        wanted = torch.tensor(rises).mean(dim=1)
        assert float((slope - wanted).abs().max()) < 1e-4


@pytest.mark.parametrize("levels", [4, 64])
def test_a_linear_model_behind_a_rounding_layer_is_broken_as_if_it_were_not_there(
    levels: int,
) -> None:
    """What lies within reach whatever the rounding does breaks; a flag names the layer."""
    plain, exact = linear_problem(2, Norm.LINF, 40)
    epsilon = 2.0 / levels
    module = nn.Sequential(Unit(lambda x: (levels * x).round() / levels), plain.model)
    with torch.no_grad():
        labels = module(plain.inputs).argmax(dim=1)
    problem = pose(module, plain.inputs, labels, epsilon=epsilon, classes=2)
    # Rounding moves each pixel by half a level at most: in the input, and in what is found.
    surely = torch.from_numpy(exact < epsilon - 1 / levels) & (labels == plain.labels)
    proposal = solve("adaptive[preset=light]", problem)
    assert surely.any()
    assert broken(problem, proposal)[surely.numpy()].all()
    assert proposal.flags == (
        Flag("misleading-layers", "layers were followed by measured slopes: 1 Unit"),
    )
    assert solve("adaptive[preset=light,smooth=false]", problem).flags == ()
