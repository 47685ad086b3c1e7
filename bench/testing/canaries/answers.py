"""Defenses whose answers mislead: their form, or what they depend on."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.testing import honest
from bench.testing.architectures import CLASSES
from bench.testing.canaries.base import Canary, Pair


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


class OtherScores(Pair):
    """Decides by the network inside, and shows the scores of another, honest one.

    Where that has another class on top, its score and the decision's change places: what attacks
    climb is smooth, and does not lead to where the decision changes.

    Args:
        net: which decides.
    """

    name = "other-scores"
    evidence = ("jump-at-border",)

    def forward(self, x: Tensor) -> Tensor:
        """The other's scores in the decision's order."""
        scores: Tensor = self.other(x)
        decided, shown = self.logits(x).argmax(dim=1), scores.argmax(dim=1)
        places = torch.arange(scores.shape[1], device=x.device).repeat(len(x), 1)
        places.scatter_(1, decided[:, None], shown[:, None])
        places.scatter_(1, shown[:, None], decided[:, None])
        return scores.gather(1, places)


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


class Memory(Canary):
    """Remembers what it was asked, and answers what lies near as it did before.

    As services do that look out for similar queries: an attack on one who has seen the original
    finds nothing.
    """

    name = "memory"
    evidence = ("zero-margin-gradient", "call-order-dependence")
    room: ClassVar[int] = 100
    """How many inputs it remembers."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.asked = torch.empty(0, 64)
        self.answered = torch.empty(0, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, those of the nearest input that it remembers where it lies within 0.3."""
        logits, flat = self.logits(x), x.detach().flatten(1)
        new = torch.ones(len(x), dtype=torch.bool)
        if len(self.asked):
            far, which = (flat[:, None] - self.asked).abs().amax(dim=2).min(dim=1)
            new = far >= 0.3
            logits = torch.where(new[:, None], logits, self.answered[which])
        kept = new.nonzero()[: self.room - len(self.asked), 0]
        self.asked = torch.cat([self.asked, flat[kept]])
        self.answered = torch.cat([self.answered, logits[kept].detach()])
        return logits
