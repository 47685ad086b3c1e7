"""The one way from a problem to a Foolbox attack and back.

Two habits of Foolbox are mended here: its decision-based attacks stop for the whole batch when one
example has no starting point (here the others go on), and its minimum-norm attacks may be told an
epsilon to stop at (here never, so that the result cannot depend on it). Those of its attacks within
epsilon are mended in `bench.attacks.blocks.within`, those of single ones in `…repairs`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from bench.api import Attack, Proposal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from bench.api import Problem
    from bench.threat import Norm

#: Forwards per example for a starting point; its draws of noise are seldom all needed.
STARTING = 20


#: How many times its estimated cost an attack may take before it is taken for endless.
PATIENCE = 10


class FoolboxAttack(Attack):
    """An attack of Foolbox 3.3 (Rauber et al., JOSS 2020)."""

    libraries = ("foolbox",)
    implementations: ClassVar[Mapping[Norm, str]] = {}
    """The Foolbox class for each norm that the attack searches in; the first one also serves
    threat models of other norms. A repaired class goes before Foolbox's of the same name."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.norms = frozenset(cls.implementations)

    def options(self, norm: Norm) -> dict[str, Any]:
        """Keyword arguments of the Foolbox class for a norm."""
        return {}

    def searched(self, norm: Norm) -> Norm:
        """The norm that is searched in when the threat model's is this one."""
        return norm if norm in self.norms else next(iter(self.implementations))

    def build(self, norm: Norm) -> Any:
        """The Foolbox attack for a norm of the threat model."""
        from bench.attacks.blocks import repairs
        from bench.attacks.blocks.library import foolbox

        searched = self.searched(norm)
        name = self.implementations[searched]
        implementation = getattr(repairs, name, None) or getattr(foolbox.attacks, name)
        return implementation(**self.options(searched))


class MinimumAttack(FoolboxAttack):
    """One that searches the smallest perturbation, once for all epsilons."""

    kind = "minimum"
    starts: ClassVar[Literal["never", "failed", "always"]] = "never"
    """Whether it begins at an adversarial point: each time, as attacks do that walk along the
    decision boundary, or in a second run for the examples that a first one left unbroken."""

    def run(self, problem: Problem) -> Proposal:
        """Search with Foolbox.

        Raises:
            AttackError: no end to its loop.
        """
        import torch

        from bench.attacks.blocks.guard import Guard
        from bench.attacks.blocks.repairs import starting_points

        _, channels, height, width = problem.inputs.shape
        shape = (channels, height, width)
        cost = self.cost(norm=problem.norm, shape=shape, classes=problem.classes)
        model = Guard(problem.model, PATIENCE * cost.forwards)
        candidates, success = problem.inputs.clone(), torch.zeros_like(problem.labels).bool()
        if self.starts != "always":
            candidates, success = self._call(model, problem.inputs, problem)
        if self.starts == "never" or bool(success.all()):
            return Proposal(candidates)
        points, usable = starting_points(problem, wanted=~success)
        if len(usable):
            candidates[usable], _ = self._call(
                model, problem.inputs[usable], problem, usable, points[usable]
            )
        missing = int((~success).sum()) - len(usable)
        flag = f"no starting point for {missing} of {len(candidates)} examples"
        return Proposal(candidates, flags=(flag,) if missing and self.starts == "always" else ())

    def _call(
        self,
        model: nn.Module,
        inputs: Tensor,
        problem: Problem,
        rows: Tensor | None = None,
        starts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Candidates, and where Foolbox says that they are adversarial."""
        import eagerpy

        from bench.attacks.blocks.library import foolbox

        labels = problem.labels if rows is None else problem.labels[rows]
        target = foolbox.PyTorchModel(model, bounds=(0, 1), device=inputs.device)
        further = {} if starts is None else {"starting_points": eagerpy.astensor(starts)}
        with warnings.catch_warnings():  # NumPy's on empty means, Foolbox's on failed draws
            warnings.simplefilter("ignore")
            _, clipped, success = self.build(problem.norm)(
                target, inputs, labels, epsilons=None, **further
            )
        return clipped.detach(), success


def each_norm(pattern: str, *norms: Norm) -> Mapping[Norm, str]:
    """One Foolbox class name per norm: its pattern with `{}` for Foolbox's prefix of the norm."""
    return {norm: pattern.format(norm.value) for norm in norms}
