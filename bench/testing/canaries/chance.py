"""Defenses that draw something anew in every call."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.testing.canaries.base import Canary


class AdditiveNoise(Canary):
    """Adds Gaussian noise to the input, fresh in every call."""

    name = "additive-noise"
    evidence = ("randomised",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the noisy input."""
        return self.logits(x + 0.2 * torch.randn_like(x))


class RandomShift(Canary):
    """Shifts each image by up to 0.6 pixels either way, anew in every call (bilinear)."""

    name = "random-shift"
    evidence = ("randomised",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the shifted input."""
        transform = torch.eye(2, 3).to(x).repeat(len(x), 1, 1)
        reach = 0.6 * 2 / x.shape[-1]  # the grid spans -1 to 1
        transform[:, :, 2] = reach * (2 * torch.rand_like(transform[:, :, 2]) - 1)
        grid = functional.affine_grid(transform, list(x.shape), align_corners=False)
        return self.logits(functional.grid_sample(x, grid, align_corners=False))


class RandomResizing(Canary):
    """Shows each image larger or smaller, by up to a fifth, anew in every call (Xie et al., 2018).

    Bilinear, with black around what has become smaller.
    """

    name = "random-resizing"
    evidence = ("randomised",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the resized input."""
        scale = 0.8 + 0.4 * torch.rand(len(x), 1, 1).to(x)
        grid = functional.affine_grid(
            scale * torch.eye(2, 3).to(x), list(x.shape), align_corners=False
        )
        return self.logits(functional.grid_sample(x, grid, align_corners=False))


class Dithering(Canary):
    """Rounds pixels to four levels, up or down by chance: no gradient, on average or otherwise."""

    name = "dithering"
    evidence = ("randomised", "zero-margin-gradient")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rounded input, which is the input on average."""
        return self.logits((3 * x + torch.rand_like(x)).floor() / 3)


class DropoutLeftOn(Canary):
    """Dropout that goes on after training, whatever the mode."""

    name = "dropout-left-on"
    evidence = ("randomised",)
    twin = "cnn-dropout"

    def forward(self, x: Tensor) -> Tensor:
        """Logits without a quarter of the features before each linear layer."""
        for layer in self.net.children():
            x = functional.dropout(x, layer.p) if isinstance(layer, nn.Dropout) else layer(x)
        return x


class StochasticPruning(Canary):
    """Keeps activations by chance, the large ones rather (Dhillon et al., ICLR 2018).

    Of M units after a ReLU as many are drawn, with replacement and in proportion to their value;
    what was drawn is scaled so that it stays the same on average.
    """

    name = "stochastic-pruning"
    evidence = ("randomised",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of what is kept."""
        for layer in self.net.children():
            x = layer(x)
            if isinstance(layer, nn.ReLU):
                flat = x.detach().flatten(1)
                shares = flat / flat.sum(dim=1, keepdim=True).clamp(min=1e-12)
                kept = (1 - (1 - shares) ** flat.shape[1]).reshape(x.shape)
                x = torch.where(torch.rand_like(x) < kept, x / kept.clamp(min=1e-12), 0)
        return x
