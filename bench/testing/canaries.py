"""The modules of the canaries: an honest network inside, and around it one thing that is wrong.

Thirteen defenses on digits that are broken by design, each in a few lines.

Each looks robust to an attack that trusts it, and is no more robust than the honest CNN inside.
Winnow has to break it that far or to withhold its trust, and to say why: each names the evidence
that gives it away.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.testing import canaries, honest

if TYPE_CHECKING:
    from collections.abc import Callable


class Wrapper(nn.Module):
    """A defense around a network.

    Args:
        net: float32 (N, 1, 8, 8) to logits (N, classes).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def logits(self, x: Tensor) -> Tensor:
        """Those of the network inside."""
        logits: Tensor = self.net(x)
        return logits


class DetachedGradient(Wrapper):
    """Cuts the graph, so that the gradient cannot be computed."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits that do not depend on `x`, as far as autograd knows."""
        return self.logits(x.detach())


class InputRounding(Wrapper):
    """Rounds pixels to four levels; the gradient of rounding is zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the rounded input."""
        return self.logits((3 * x).round() / 3)


class LargeLogits(Wrapper):
    """Scales logits until the softmax saturates and cross-entropy has no gradient in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits times 10,000."""
        return 1e4 * self.logits(x)


class SoftmaxOutput(Wrapper):
    """Answers with probabilities, of which a loss takes the softmax again."""

    def forward(self, x: Tensor) -> Tensor:
        """Rows that sum to 1."""
        return self.logits(x).softmax(dim=1)


class OneHotOutput(Wrapper):
    """Answers with its decision alone."""

    def forward(self, x: Tensor) -> Tensor:
        """1 for the predicted class and 0 for the others."""
        logits = self.logits(x)
        return functional.one_hot(logits.argmax(dim=1), logits.shape[1]).to(logits)


class AdditiveNoise(Wrapper):
    """Adds Gaussian noise to the input, fresh in every call."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the noisy input."""
        return self.logits(x + 0.2 * torch.randn_like(x))


class RandomShift(Wrapper):
    """Shifts each image by up to 0.6 pixels either way, anew in every call (bilinear)."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the shifted input."""
        transform = torch.eye(2, 3).to(x).repeat(len(x), 1, 1)
        reach = 0.6 * 2 / x.shape[-1]  # the grid spans -1 to 1
        transform[:, :, 2] = reach * (2 * torch.rand_like(transform[:, :, 2]) - 1)
        grid = functional.affine_grid(transform, list(x.shape), align_corners=False)
        return self.logits(functional.grid_sample(x, grid, align_corners=False))


class Compression(Wrapper):
    """Rounds the cosine transform of 4×4 blocks, as JPEG does, and declares no surrogate."""

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


class OptimiserInForward(Wrapper):
    """Moves the input towards the class it looks like (Alfarra et al., AAAI 2022)."""

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


class BatchNormTraining(Wrapper):
    """Batch normalisation left in training mode: an answer depends on the inputs beside it.

    With the statistics of the training data in place of the batch's, it is the network inside.

    Args:
        net: whose hidden linear layer, the third from the end, is normalised.
    """

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


class Lookup(Wrapper):
    """Knows the data set by heart, and answers the least likely class of any other input."""

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


class NaNOffData(Wrapper):
    """Answers NaN unless every pixel is one of the 17 levels of the data set."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits, or NaN."""
        levels = 16 * x.detach()
        off = ((levels - levels.round()).abs() > 1e-3).flatten(1).any(dim=1)
        return self.logits(x).masked_fill(off[:, None], float("nan"))


#: The honest model that the canaries are made of.
TWIN = "cnn"


@dataclass(frozen=True)
class Canary:
    """A defense that Winnow must not believe."""

    name: str
    build: Callable[[int], nn.Module]
    """From a seed to the module, in eval mode, its parameters frozen."""
    evidence: tuple[str, ...]
    """Identifiers of evidence; at least one of them has to be raised."""
    summary: str
    """One line."""
    twin: str = TWIN
    """The name of the honest model that it is no more robust than."""


def _wrap(wrapper: Callable[[nn.Module], nn.Module], seed: int) -> nn.Module:
    return wrapper(honest.build(TWIN, seed)).eval().requires_grad_(False)


def _batch_norm(seed: int) -> nn.Module:
    net = honest.build(TWIN, seed)
    assert isinstance(net, nn.Sequential)
    return canaries.BatchNormTraining(net).eval().requires_grad_(False)


#: Trained as the twin is, with its own activations.
KWTA = honest.Trained("kwta", functools.partial(honest.network, "kwta"), "k-WTA", "kwta")


_ZERO = "zero-margin-gradient"


_FIDELITY = "gradient-fidelity"


#: Every canary by its name.
CANARIES = {
    name: Canary(name, build, evidence, summary)
    for name, build, evidence, summary in (
        (
            "detached-gradient",
            functools.partial(_wrap, canaries.DetachedGradient),
            (_ZERO, "unavailable-gradients"),
            "The input is detached from the graph",
        ),
        (
            "input-rounding",
            functools.partial(_wrap, canaries.InputRounding),
            (_ZERO, _FIDELITY),
            "Pixels rounded to four levels",
        ),
        (
            "large-logits",
            functools.partial(_wrap, canaries.LargeLogits),
            ("cross-entropy-zero-gradient",),
            "Logits × 10⁴",
        ),
        (
            "softmax-output",
            functools.partial(_wrap, canaries.SoftmaxOutput),
            ("softmax-output",),
            "Probabilities in place of logits",
        ),
        (
            "one-hot-output",
            functools.partial(_wrap, canaries.OneHotOutput),
            ("one-hot-output", _ZERO),
            "The decision in place of logits",
        ),
        (
            "additive-noise",
            functools.partial(_wrap, canaries.AdditiveNoise),
            ("randomised",),
            "Gaussian noise added to the input",
        ),
        (
            "random-shift",
            functools.partial(_wrap, canaries.RandomShift),
            ("randomised",),
            "A random shift of up to 0.6 pixels",
        ),
        ("kwta", KWTA.build, (_FIDELITY,), "k-Winners-Take-All activations, gamma 0.1"),
        (
            "compression",
            functools.partial(_wrap, canaries.Compression),
            (_ZERO, "unavailable-gradients"),
            "Rounded cosine transform, no surrogate declared",
        ),
        (
            "optimiser-in-forward",
            functools.partial(_wrap, canaries.OptimiserInForward),
            ("optimiser-in-forward",),
            "Gradient steps on the input inside forward",
        ),
        (
            "batch-norm-training",
            _batch_norm,
            ("batch-dependence",),
            "Batch normalisation over the batch at hand",
        ),
        (
            "lookup",
            functools.partial(_wrap, canaries.Lookup),
            ("noise-beyond-single-step", _ZERO),
            "Recognises the data set, bit for bit",
        ),
        (
            "nan-off-data",
            functools.partial(_wrap, canaries.NaNOffData),
            ("nan-logits",),
            "NaN off the data's pixel levels",
        ),
    )
}
