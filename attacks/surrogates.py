"""Attacks that search on one model and break another: kinder gradients, and transfer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from bench.api import Attack, Cost, Proposal
from bench.api.attacks import radius
from bench.attacks.autoattack import APGDCE, APGDT
from bench.errors import AttackError, UsageError
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from bench.api import Problem
    from bench.attacks.blocks.descent import Search

#: Gradient steps of each search on the source of a transfer attack.
STEPS = 20
#: Descents on the margin on each surrogate, by preset; the steps of each, and what is left of an
#: older gradient after a step.
DESCENTS, LONG, DECAY = {"light": 4, "full": 60}, 25, 0.6


@register_attack("surrogate")
class Surrogate(Attack):
    """Backward-pass differentiable approximation (Athalye et al., ICML 2018), several attacks deep.

    What the defense declares in `Defense.surrogates` answers as the model does and has kinder
    gradients. The attacks search with them one after another, each on what is not broken yet: the
    last are descents on the margin, before each of which a surrogate that can be told how smooth
    its backward pass is to be (`bench.defenses.activations.smooth.Softenable`) is told anew.

    Args:
        preset: `light` is APGD-CE and 4 descents on each surrogate; `full` has APGD-T between
            them and 60 descents.
    """

    summary = "APGD and margin PGD by the gradients that the defense declares (BPDA)"
    aliases = ("bpda",)
    spoken = "The defense's own surrogates"
    version = 5
    norms = frozenset({Norm.LINF, Norm.L2})
    needs = "surrogates"

    def __init__(self, *, preset: Literal["light", "full"] = "light") -> None:
        if preset not in DESCENTS:
            raise UsageError(f"preset has to be one of {', '.join(DESCENTS)} (got {preset!r})")
        self.cascade: list[Attack] = [APGDCE()]
        if preset == "full":
            self.cascade.append(APGDT())
        self.descents = DESCENTS[preset]

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every attack on two surrogates, for an example that does not break."""
        total = Cost(LONG + 1, LONG) * (2 * self.descents)
        for attack in (*self.cascade, *self.cascade):
            if attack.why_not(norm=norm, shape=shape, classes=classes) is None:
                passes = attack.cost(norm=norm, shape=shape, classes=classes)
                total = total + passes + Cost(1)
        return total

    def run(self, problem: Problem) -> Proposal:
        """Search with the gradients of each surrogate.

        Raises:
            AttackError: no surrogates, or no epsilon.
        """
        from bench.attacks.blocks.descent import Search
        from bench.defenses.activations.smooth import Smoothness, soften

        if not problem.surrogates:
            raise AttackError("the defense declares no surrogates (Defense.surrogates)")
        channels, height, width = problem.inputs.shape[1:]
        modules = list(problem.surrogates.values())
        search = Search(problem)
        try:
            for module in modules:
                soften(module, Smoothness())
            for attack in self.cascade:
                why = attack.why_not(
                    norm=problem.norm, shape=(channels, height, width), classes=problem.classes
                )
                for module in modules if why is None else []:
                    search.hand_over(attack, module)
            self._descend(search, modules)
        finally:
            for module in modules:
                soften(module, Smoothness())
        return Proposal(search.best)

    def _descend(self, search: Search, modules: Sequence[nn.Module]) -> None:
        """From the inputs and then from random points, each time on every surrogate."""
        from bench.attacks.blocks.ball import Streams
        from bench.attacks.blocks.descent import Momentum, OwnGradient, cosine
        from bench.defenses.activations.smooth import Smoothness, soften

        problem, sizes = search.problem, cosine(LONG, 1.0)
        streams = Streams(problem, "surrogates")
        for number in range(self.descents):
            for module in modules:
                soften(module, Smoothness.drawn(problem.seed, number))
                own = OwnGradient(module, problem.labels)
                look = Momentum(own, problem.inputs, DECAY)
                if number:
                    search.restart(streams, sizes, look, 1)
                elif len(rows := search.remaining):
                    search.descend(problem.inputs[rows], rows, sizes, look)


@register_attack("transfer")
class Transfer(Attack):
    """Adversarial examples of another defense, tried on this one (Papernot et al., 2017).

    They are found on the source by PGD on the margin, APGD-CE, and the momentum iterative method
    (Dong et al., CVPR 2018), each to its end: the iterate with the source's lowest margin. Each of
    the three is shown to the target once, and what fools it most is kept.

    Args:
        source: the defense to search on, such as `relu-at`, on the network that this defense names;
            `twin` is the one that this defense is compared with.
    """

    summary = "Adversarial examples of the twin, or of any named defense"
    version = 3
    spoken = "Transfer"
    access = "black-box"
    norms = frozenset({Norm.LINF, Norm.L2})
    needs = "source"
    libraries = ("pyautoattack",)

    def __init__(self, *, source: str = "twin") -> None:
        if not source:
            raise UsageError("source has to name a defense, or be `twin` (got an empty name)")
        self.source = source

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Passes of the source, and one query of the target for each of the three."""
        return Cost(3 * STEPS + 8, 3 * STEPS + 1)

    def run(self, problem: Problem) -> Proposal:
        """Search on the source. `extra["source_broken"]` marks what fools the source (bool, N).

        Raises:
            AttackError: no source, or no epsilon.
        """
        import torch

        from bench.api.attacks import margins
        from bench.attacks.blocks.descent import Momentum, OwnGradient, Search, cosine

        if problem.source is None:
            raise AttackError(f"no model of the source {self.source!r} was given")
        own = OwnGradient(problem.source, problem.labels)
        everything = torch.arange(len(problem.inputs), device=problem.inputs.device)
        momentum = Momentum(own, problem.inputs, 1.0)
        found = Search(problem)
        for look, sizes in ((own, cosine(STEPS, 1.0)), (momentum, [0.1] * STEPS)):
            on_source = Search(dataclasses.replace(problem, model=problem.source))
            on_source.descend(problem.inputs, everything, sizes, look, leave=False)
            found.offer(everything, on_source.best)
        found.offer(everything, _lowered(problem, problem.source))
        with torch.no_grad():
            fooled = margins(problem.source(found.best), problem.labels) < 0
        return Proposal(found.best, extra={"source_broken": fooled.cpu().numpy()})


def _lowered(problem: Problem, source: nn.Module) -> Tensor:
    """What APGD-CE finds of the highest loss on a source, adversarial there or not."""
    from pyautoattack.autopgd_base import APGDAttack

    attack = APGDAttack(
        source,
        n_iter=STEPS,
        norm=problem.norm.value,
        eps=radius(problem),
        seed=problem.seed,
        device=problem.inputs.device,
    )
    candidates: Tensor = attack.perturb(problem.inputs, problem.labels, best_loss=True)
    return candidates.detach()
