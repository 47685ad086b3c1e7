"""Attacks that search on one model and break another: kinder gradients, and transfer."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal

from bench.api import Attack, Cost, Proposal
from bench.api.attacks import radius
from bench.attacks.autoattack import APGDCE, APGDT
from bench.attacks.descents import FiniteDifferencePGD, MarginPGD
from bench.errors import AttackError, UsageError
from bench.registry import register_attack
from bench.threat import Norm

if TYPE_CHECKING:
    from torch import Tensor, nn

    from bench.api import Problem

#: Gradient steps of each search on the source of a transfer attack.
STEPS = 50
#: Restarts of PGD on the margin on each surrogate, by preset.
RESTARTS = {"light": 8, "full": 40}


@register_attack("surrogate")
class Surrogate(Attack):
    """Backward-pass differentiable approximation (Athalye et al., ICML 2018), several attacks deep.

    What the defense declares in `Defense.surrogates` answers as the model does and has kinder
    gradients. The attacks search with them one after another, each on what is not broken yet.

    Args:
        preset: `light` is APGD-CE and PGD on the margin with 8 restarts, on each surrogate; `full`
            has APGD-T between them and 40 restarts.
        finite_differences: whether `fd-pgd` goes last.
    """

    summary = "APGD and margin PGD by the gradients that the defense declares (BPDA)"
    spoken = "The defense's own surrogates"
    escalation = (("",), ("preset=full",))
    urgency = 2
    version = 2
    norms = frozenset({Norm.LINF, Norm.L2})
    needs = "surrogates"
    libraries = ("pyautoattack",)

    def __init__(
        self, *, preset: Literal["light", "full"] = "light", finite_differences: bool = False
    ) -> None:
        if preset not in RESTARTS:
            raise UsageError(f"preset has to be one of {', '.join(RESTARTS)} (got {preset!r})")
        self.cascade: list[Attack] = [APGDCE(), MarginPGD(restarts=RESTARTS[preset])]
        if preset == "full":
            self.cascade.insert(1, APGDT())
        self.last = [FiniteDifferencePGD()] if finite_differences else []

    def cost(self, *, norm: Norm, shape: tuple[int, int, int], classes: int) -> Cost:
        """Every attack on two surrogates, for an example that does not break."""
        total = Cost(0)
        for attack in (*self.cascade, *self.cascade, *self.last):
            if attack.why_not(norm=norm, shape=shape, classes=classes) is None:
                passes = attack.cost(norm=norm, shape=shape, classes=classes)
                total = total + passes + Cost(1)
        return total

    def run(self, problem: Problem) -> Proposal:
        """Search with the gradients of each surrogate.

        Raises:
            AttackError: no surrogates, or no epsilon.
        """
        if not problem.surrogates:
            raise AttackError("the defense declares no surrogates (Defense.surrogates)")
        channels, height, width = problem.inputs.shape[1:]
        found = _Found(problem)
        modules: list[nn.Module] = list(problem.surrogates.values())
        for attack in self.cascade:
            why = attack.why_not(
                norm=problem.norm, shape=(channels, height, width), classes=problem.classes
            )
            for module in modules if why is None else []:
                found.attack(attack, module)
        for attack in self.last:
            found.attack(attack, problem.model)
        return Proposal(found.candidates)


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
        found = _Found(problem)
        for look, sizes in ((own, cosine(STEPS, 1.0)), (momentum, [0.1] * STEPS)):
            search = Search(dataclasses.replace(problem, model=problem.source))
            search.descend(problem.inputs, everything, sizes, look, leave=False)
            found.offer(everything, search.best)
        found.offer(everything, _lowered(problem, problem.source))
        with torch.no_grad():
            fooled = margins(problem.source(found.candidates), problem.labels) < 0
        return Proposal(found.candidates, extra={"source_broken": fooled.cpu().numpy()})


class _Found:
    """The best candidates of several searches, by the margin of the true model.

    Args:
        problem: whose model decides.
    """

    def __init__(self, problem: Problem) -> None:
        import torch

        self.problem = problem
        self.candidates = problem.inputs.clone()
        self.lowest = torch.full_like(problem.labels, torch.inf, dtype=torch.float64)

    def attack(self, attack: Attack, module: nn.Module) -> None:
        """Let an attack search with a module, on what is not broken yet."""
        import torch

        (rows,) = torch.where(self.lowest >= 0)
        if len(rows) == 0:
            return
        part = dataclasses.replace(
            self.problem,
            model=module,
            inputs=self.problem.inputs[rows],
            labels=self.problem.labels[rows],
        )
        self.offer(rows, attack.run(part).candidates)

    def offer(self, rows: Tensor, candidates: Tensor) -> None:
        """Ask the model about candidates for these examples, and keep those that are better."""
        import torch

        from bench.api.attacks import margins

        with torch.no_grad():
            logits = self.problem.model(candidates)
        found = margins(logits, self.problem.labels[rows]).double()
        better = found < self.lowest[rows]
        self.candidates[rows[better]] = candidates[better]
        self.lowest[rows[better]] = found[better]


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
