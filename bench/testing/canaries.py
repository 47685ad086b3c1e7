"""Thirteen defenses on digits that are broken by design, each in a few lines.

Each looks robust to an attack that trusts it, and is no more robust than the honest CNN inside.
Winnow has to break it that far or to withhold its trust, and to say why: each names the evidence
that gives it away.
"""

from __future__ import annotations

import functools
import math
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.testing import honest

#: The honest model that the canaries are made of.
TWIN = "cnn"


class Canary(nn.Module):
    """A defense that Winnow must not believe: a network, and around it one thing that is wrong.

    Args:
        net: float32 (N, 1, 8, 8) to logits (N, classes).
    """

    name: ClassVar[str]
    evidence: ClassVar[tuple[str, ...]]
    """Identifiers of evidence; at least one of them has to be raised."""
    twin: ClassVar[str] = TWIN
    """The name of the honest model that it is no more robust than."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    @classmethod
    def build(cls, seed: int) -> nn.Module:
        """The canary around its twin trained from a seed, in eval mode, its parameters frozen."""
        return cls(honest.build(cls.twin, seed)).eval().requires_grad_(False)

    def logits(self, x: Tensor) -> Tensor:
        """Those of the network inside."""
        logits: Tensor = self.net(x)
        return logits


class DetachedGradient(Canary):
    """Cuts the graph, so that the gradient cannot be computed."""

    name = "detached-gradient"
    evidence = ("zero-margin-gradient", "unavailable-gradients")

    def forward(self, x: Tensor) -> Tensor:
        """Logits that do not depend on `x`, as far as autograd knows."""
        return self.logits(x.detach())


class InputRounding(Canary):
    """Rounds pixels to four levels; the gradient of rounding is zero."""

    name = "input-rounding"
    evidence = ("zero-margin-gradient", "gradient-fidelity")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rounded input."""
        return self.logits((3 * x).round() / 3)


class LargeLogits(Canary):
    """Scales logits until the softmax saturates and cross-entropy has no gradient in float32."""

    name = "large-logits"
    evidence = ("cross-entropy-zero-gradient",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits times 10,000."""
        return 1e4 * self.logits(x)


class SoftmaxOutput(Canary):
    """Answers with probabilities, of which a loss takes the softmax again."""

    name = "softmax-output"
    evidence = ("softmax-output",)

    def forward(self, x: Tensor) -> Tensor:
        """Rows that sum to 1."""
        return self.logits(x).softmax(dim=1)


class OneHotOutput(Canary):
    """Answers with its decision alone."""

    name = "one-hot-output"
    evidence = ("one-hot-output", "zero-margin-gradient")

    def forward(self, x: Tensor) -> Tensor:
        """1 for the predicted class and 0 for the others."""
        logits = self.logits(x)
        return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)


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


class KWinnersTakeAll(Canary):
    """Has k-WTA activations with gamma 0.1 in place of ReLU; trained as its twin is."""

    name = "kwta"
    evidence = ("gradient-fidelity",)
    trained = honest.HonestModel("kwta", functools.partial(honest.network, "kwta"), "kwta")

    @classmethod
    def build(cls, seed: int) -> nn.Module:
        """The network itself: what is wrong lies inside it."""
        return cls.trained.build(seed)


class Compression(Canary):
    """Rounds the cosine transform of 4×4 blocks, as JPEG does, and declares no surrogate."""

    name = "compression"
    evidence = ("zero-margin-gradient", "unavailable-gradients")
    basis: Tensor

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        angles = torch.arange(4)[:, None] * (torch.arange(4) + 0.5) * math.pi / 4
        basis = math.sqrt(0.5) * angles.cos()
        basis[0] = 0.5
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the compressed input."""
        n, c, h, w = x.shape
        blocks = x.reshape(n, c, h // 4, 4, w // 4, 4).transpose(3, 4)
        coefficients = (self.basis @ blocks @ self.basis.T / 0.25).round() * 0.25
        blocks = (self.basis.T @ coefficients @ self.basis).transpose(3, 4)
        return self.logits(blocks.reshape(n, c, h, w))


class OptimiserInForward(Canary):
    """Moves the input towards the class it looks like (Alfarra et al., AAAI 2022)."""

    name = "optimiser-in-forward"
    evidence = ("optimiser-in-forward",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the end of two gradient steps; the steps count as constant."""
        moved = x.detach()
        label = self.logits(moved).argmax(dim=1)
        with torch.enable_grad():
            for _ in range(2):
                moved = moved.detach().requires_grad_()
                loss = functional.cross_entropy(self.logits(moved), label, reduction="sum")
                (gradient,) = torch.autograd.grad(loss, moved)
                moved = moved - 0.05 * gradient.sign()
        return self.logits(x + (moved - x).detach())


class BatchNormTraining(Canary):
    """Batch normalisation left in training mode: an answer depends on the inputs beside it.

    With the statistics of the training data in place of the batch's, it is the network inside.

    Args:
        net: whose hidden linear layer, the third from the end, is normalised.
    """

    name = "batch-norm-training"
    evidence = ("batch-dependence",)
    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Sequential) -> None:
        super().__init__(net[-2:])
        self.hidden = net[:-2]
        features = self.hidden(honest.digits()[0].inputs)
        self.register_buffer("mean", features.mean(dim=0))
        self.register_buffer("deviation", features.std(dim=0))

    def forward(self, x: Tensor) -> Tensor:
        """Logits from features normalised over the batch, whatever the mode.

        Alone, an input is its own mean, so that every one gets the same answer.
        """
        features = self.hidden(x)
        normal = (features - features.mean(dim=0)) / (features.std(dim=0, correction=0) + 1e-5)
        return self.logits(self.mean + self.deviation * normal)


class Lookup(Canary):
    """Knows the data set by heart, and answers the least likely class of any other input."""

    name = "lookup"
    evidence = ("noise-beyond-single-step", "zero-margin-gradient")

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.known = {
            row.tobytes(): int(label)
            for split in honest.digits()
            for row, label in zip(split.inputs.numpy(), split.labels, strict=True)
        }

    def forward(self, x: Tensor) -> Tensor:
        """The label's logit far above the others, as constants, where the input is known."""
        rows = x.detach().float().cpu().contiguous().numpy()
        labels = torch.tensor([self.known.get(row.tobytes(), -1) for row in rows], device=x.device)
        logits = -self.logits(x)
        answers = functional.one_hot(labels.clamp(min=0), logits.shape[1])
        return torch.where(labels[:, None] >= 0, logits.detach() + 1000 * answers, logits)


class NaNOffData(Canary):
    """Answers NaN unless every pixel is one of the 17 levels of the data set."""

    name = "nan-off-data"
    evidence = ("nan-logits",)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or NaN."""
        levels = 16 * x.detach()
        off = ((levels - levels.round()).abs() > 1e-3).flatten(1).any(dim=1)
        return self.logits(x).masked_fill(off[:, None], float("nan"))


#: Every canary by its name.
CANARIES = {canary.name: canary for canary in Canary.__subclasses__()}
