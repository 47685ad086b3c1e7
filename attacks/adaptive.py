"""One attack for anybody's model: descents, hops and local search as chains over the best points.

It needs no declaration: layers in which the largest win, through which a gradient misleads, are
found in the module while it is asked, and differentiated with the choice of the winners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from bench.api import Attack, Cost, Flag, Proposal
from bench.errors import UsageError, is_out_of_memory
from bench.registry import register_attack

if TYPE_CHECKING:
    from torch import Tensor

    from bench.api import Problem
    from bench.attacks.blocks.chains import Loss
    from bench.attacks.blocks.smoothing import SmoothBackward, Smoothness
    from bench.threat import Norm

#: Forwards and backwards of one example, after which nothing new is begun for it.
PASSES = {"light": 400, "default": 3600, "full": 12000}


@register_attack("adaptive")
class Adaptive(Attack):
    """Chains of hops, descents and local search, through winner-take-all layers as well.

    Four descents, on the margin, the cross-entropy, and the margins over the second and the third
    class, start from the input and from random points. Their ends become chains, which hop in turn:
    pixels are moved far, a short descent follows, and candidates near its end are tried. An example
    is done when two of its points, found apart, are equally low; where gradients mislead they do
    not agree, and it goes on for as many passes as it has. See `docs/adaptive.md`.

    Args:
        preset: passes of an example that does not break, at most: `light` 400, `default` 3,600,
            `full` 12,000.
        smooth: whether winner-take-all layers are looked for; without it the model's own gradient
            is followed throughout.
    """

    summary = "Chains of hops, descents and local search, through winner-take-all layers as well"
    approach = "mixed"
    lowers = "margin"
    spoken = "The adaptive attack"
    planted = ("preset=light",)
    escalation = (("",), ("preset=full",))
    urgency = 4

    def __init__(
        self, *, preset: Literal["light", "default", "full"] = "default", smooth: bool = True
    ) -> None:
        if preset not in PASSES:
            raise UsageError(f"preset has to be one of {', '.join(PASSES)} (got {preset!r})")
        self.passes = PASSES[preset]
        self.smooth = smooth

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """What an example may take, and the last turn that it begins before its end."""
        # The first descents, 205 passes, fit into every preset; a turn that is begun, at most 51,
        # is ended. Of all passes at most half are backwards.
        return Cost(self.passes + 51, (self.passes + 51) / 2)

    def run(self, problem: Problem) -> Proposal:
        """Search; a flag names the winner-take-all layers that were found.

        Raises:
            AttackError: the problem has no epsilon.
        """
        from bench.attacks.blocks.chains import Chains
        from bench.attacks.blocks.smoothing import SmoothBackward

        with SmoothBackward(problem.model) as backward:
            chains = Chains(problem, _Look(problem, backward, smooth=self.smooth), self.passes)
            chains.run()
        layers = ", ".join(backward.layers)
        found = Flag("winner-take-all", f"winner-take-all layers were smoothed: {layers}")
        return Proposal(chains.best, flags=(found,) if layers else ())


class _Look:
    """Margins, and gradients through a backward pass that is as smooth as it is asked to be."""

    def __init__(self, problem: Problem, backward: SmoothBackward, *, smooth: bool) -> None:
        self.problem, self.backward, self.smooth = problem, backward, smooth

    def __call__(
        self, x: Tensor, rows: Tensor, loss: Loss | None, smooth: Smoothness
    ) -> tuple[Tensor, Tensor | None]:
        """See `bench.attacks.blocks.chains.Look`."""
        import torch

        from bench.api.attacks import margins

        labels = self.problem.labels[rows]
        if loss is None:
            with torch.no_grad():
                return margins(self.problem.model(x), labels), None
        self.backward.smooth = smooth if self.smooth else None
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.problem.model(x)
            gradient = _gradient(loss(logits).sum(), x)
        self.backward.smooth = None
        usable = gradient.isfinite().flatten(1).all(dim=1).reshape(-1, *[1] * (x.ndim - 1))
        return margins(logits.detach(), labels), torch.where(usable, gradient.detach(), 0)


def _gradient(loss: Tensor, x: Tensor) -> Tensor:
    """Of a loss; zero where there is none, whatever the backward pass raises for want of it."""
    import torch

    try:
        if loss.requires_grad:
            (found,) = torch.autograd.grad(loss, x, allow_unused=True)
            if found is not None:
                return found
    except Exception as error:
        if is_out_of_memory(error):
            raise
    return torch.zeros_like(x)
