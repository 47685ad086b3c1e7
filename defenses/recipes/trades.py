"""TRADES (Zhang et al., ICML 2019)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from bench.defenses.recipes.linf import LinfRecipe
from bench.errors import UsageError

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

#: Standard deviation of the noise that the attack starts from, in units of the inputs.
START = 0.001


class TRADES(LinfRecipe):
    """Cross-entropy on the examples, and beta times how far a perturbation moves the answer.

    loss = CE(f(x), y) + beta · KL(f(x) ‖ f(x')) (equation 5), x' raising the KL divergence from
    beside x. The attack sees the model in eval mode.

    Args:
        family: of the data set, such as `cifar10`; it sets the schedule, and defaults.
        epsilon: radius of the ball; the family's by default.
        step: length of a step; the family's by default.
        steps: how many.
        beta: weight of robustness; 6 as in the k-WTA paper.

    Raises:
        UsageError: there are no settings for this family, or a number that is not positive.
    """

    name: ClassVar[str] = "trades"

    def __init__(
        self,
        family: str,
        *,
        epsilon: float | None = None,
        step: float | None = None,
        steps: int = 10,
        beta: float = 6.0,
    ) -> None:
        super().__init__(family, epsilon=epsilon, step=step, steps=steps)
        if not beta > 0:
            raise UsageError(f"{self.name}: beta has to be positive (got {beta})")
        self.beta = beta

    def describe(self) -> dict[str, Any]:
        """Every setting."""
        return {**super().describe(), "beta": self.beta}

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean of both terms, a scalar."""
        from torch.nn.functional import cross_entropy, kl_div, log_softmax

        moved = self.perturb(model, inputs, generator)
        logits = model(inputs)
        answer, other = log_softmax(logits, dim=1), log_softmax(model(moved), dim=1)
        divergence = kl_div(other, answer, reduction="batchmean", log_target=True)
        return cross_entropy(logits, labels) + self.beta * divergence

    def perturb(self, model: nn.Module, inputs: Tensor, generator: Generator) -> Tensor:
        """What raises KL(f(x) ‖ f(x')): within epsilon of the inputs and in [0, 1].

        Args:
            model: left in the mode it came in, and without gradients in its parameters.
            inputs: float32 in [0, 1], (N, C, H, W).
            generator: on the CPU; draws where to begin, which must not be x: its gradient is 0.
        """
        import torch
        from torch.nn.functional import kl_div, log_softmax

        from bench.defenses.recipes.linf import evaluating

        noise = torch.randn(inputs.shape, generator=generator).to(inputs.device)
        with evaluating(model), torch.no_grad():
            answer = log_softmax(model(inputs), dim=1)
        return self.ascend(
            model,
            inputs,
            self.project(inputs, inputs + START * noise),
            lambda logits: kl_div(
                log_softmax(logits, dim=1), answer, reduction="sum", log_target=True
            ),
            step=self.step,
            steps=self.steps,
        )
