"""Attacks that cheat or fail, registered for tests that run in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch

from bench.api import Attack, Cost, Problem, Proposal
from bench.api.attacks import radii
from bench.models.counted import CountedModel
from bench.registry import register_attack

if TYPE_CHECKING:
    from bench.threat import Norm

Shape = tuple[int, int, int]


class Cheat(Attack):
    """An attack whose `run` is all that differs."""

    kind: ClassVar[Literal["fixed", "minimum"]] = "fixed"
    summary = "for tests"

    def cost(self, *, norm: Norm, shape: Shape, classes: int) -> Cost:
        """Nothing."""
        return Cost(0)


@register_attack("test-out-of-ball")
class OutOfBall(Cheat):
    """Returns the other class's corner of the box, far outside the ball."""

    def run(self, problem: Problem) -> Proposal:
        """All white for class 0, all black for class 1."""
        target = (problem.labels == 0).float().reshape(-1, 1, 1, 1)
        return Proposal(target.expand_as(problem.inputs).clone())


@register_attack("test-out-of-box")
class OutOfBox(Cheat):
    """Returns inputs far outside [0, 1] that the model gets wrong."""

    def run(self, problem: Problem) -> Proposal:
        """Plus 50 for class 0, minus 50 for class 1."""
        sign = 1.0 - 2.0 * problem.labels.float().reshape(-1, 1, 1, 1)
        return Proposal(problem.inputs + 50.0 * sign)


@register_attack("test-nan")
class NotANumber(Cheat):
    """Returns NaN for every second example and the honest best for the others."""

    def run(self, problem: Problem) -> Proposal:
        """Step by the sign, then spoil."""
        assert problem.epsilon is not None
        sign = 1.0 - 2.0 * problem.labels.float().reshape(-1, 1, 1, 1)
        candidates = problem.inputs + problem.epsilon * sign
        candidates[::2] = float("nan")
        return Proposal(candidates)


@register_attack("test-best")
class Best(Cheat):
    """The exact best attack on `Sum`."""

    def run(self, problem: Problem) -> Proposal:
        """Every pixel against the label."""
        assert problem.epsilon is not None
        sign = 1.0 - 2.0 * problem.labels.float().reshape(-1, 1, 1, 1)
        return Proposal((problem.inputs + problem.epsilon * sign).clamp(0, 1))


@register_attack("test-copy")
class Copy(Best):
    """`Best` under as many names as wanted."""

    def __init__(self, *, number: int = 0) -> None:
        self.number = number


@register_attack("test-small-only")
class SmallOnly(Best):
    """`Best` below epsilon 0.03; finds nothing at larger ones."""

    def run(self, problem: Problem) -> Proposal:
        """Step, or give up."""
        assert problem.epsilon is not None
        return super().run(problem) if problem.epsilon < 0.03 else Proposal(problem.inputs)


@register_attack("test-minimum")
class Minimum(Cheat):
    """The exact minimum-norm attack on `Sum`, a hair beyond the border."""

    kind = "minimum"

    def run(self, problem: Problem) -> Proposal:
        """Every pixel by the same amount."""
        assert problem.epsilon is None
        s = (problem.inputs - 0.5).flatten(1).sum(dim=1)
        shift = -(s / problem.inputs[0].numel()) * 1.001
        return Proposal(problem.inputs + shift.reshape(-1, 1, 1, 1))


@register_attack("test-random")
class Random(Cheat):
    """Uniform noise from torch's global generator: depends on the shard's seed."""

    def run(self, problem: Problem) -> Proposal:
        """One draw."""
        assert problem.epsilon is not None
        noise = torch.rand_like(problem.inputs) * 2 - 1
        return Proposal((problem.inputs + problem.epsilon * noise.sign()).clamp(0, 1))


@register_attack("test-lies")
class Lies(Cheat):
    """Claims success in a flag and returns the inputs."""

    def run(self, problem: Problem) -> Proposal:
        """Nothing found, everything claimed."""
        return Proposal(problem.inputs, flags=("broke everything",))


@register_attack("test-wrong-shape")
class WrongShape(Cheat):
    """Returns one candidate too few."""

    def run(self, problem: Problem) -> Proposal:
        """All but one."""
        return Proposal(problem.inputs[:-1])


@register_attack("test-raises")
class Raises(Cheat):
    """Raises what nobody expects."""

    def run(self, problem: Problem) -> Proposal:
        """Fail."""
        raise KeyError("lost")


@register_attack("test-tampers")
class Tampers(Cheat):
    """Turns the model's weights around, so that everything is misclassified."""

    def run(self, problem: Problem) -> Proposal:
        """Change a parameter in place."""
        with torch.no_grad():
            next(problem.model.parameters()).neg_()
        return Proposal(problem.inputs)


@register_attack("test-writes-data")
class WritesData(Cheat):
    """Changes a parameter where autograd does not see it."""

    def run(self, problem: Problem) -> Proposal:
        """Through `.data`, which raises no version."""
        next(problem.model.parameters()).data.neg_()
        return Proposal(problem.inputs)


@register_attack("test-hooks")
class Hooks(Cheat):
    """Forgets a hook that turns the logits around."""

    def run(self, problem: Problem) -> Proposal:
        """As a differentiable replacement of a layer is put in, and not taken out."""
        (linear, *_) = problem.model.children()
        linear.register_forward_hook(lambda module, x, logits: -logits)
        return Proposal(problem.inputs)


@register_attack("test-mutates")
class Mutates(Cheat):
    """Overwrites the inputs and labels that it was given."""

    def run(self, problem: Problem) -> Proposal:
        """Black images of class 1."""
        problem.inputs.zero_()
        problem.labels.fill_(1)
        return Proposal(problem.inputs)


@register_attack("test-hungry")
class Hungry(Cheat):
    """Runs out of memory while the model takes more than three examples at once."""

    def run(self, problem: Problem) -> Proposal:
        """Raise like an allocator, then step like `Best`."""
        model = problem.model
        assert isinstance(model, CountedModel)
        if model.batch_size is None or model.batch_size > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Best().run(problem)


@register_attack("test-starving")
class Starving(Cheat):
    """Runs out of memory whatever the batch size."""

    def run(self, problem: Problem) -> Proposal:
        """Raise like an allocator."""
        raise MemoryError


@register_attack("test-remaining")
class Remaining(Best):
    """`Best` on what nobody else broke."""

    scope = "remaining"


@register_attack("test-small-remaining")
class SmallRemaining(SmallOnly):
    """`SmallOnly` on what nobody else broke: survival at a large epsilon says nothing below."""

    scope = "remaining"


@register_attack("test-best-rows")
class BestRows(Best):
    """`Best`, each row within its own epsilon."""

    each_row = True

    def run(self, problem: Problem) -> Proposal:
        """Every pixel against the label."""
        sign = 1.0 - 2.0 * problem.labels.float().reshape(-1, 1, 1, 1)
        wide = radii(problem).float().reshape(-1, 1, 1, 1)
        return Proposal((problem.inputs + wide * sign).clamp(0, 1))


@register_attack("test-remaining-rows")
class RemainingRows(BestRows):
    """`Remaining`, which goes over the epsilons of each example by itself, downwards."""

    scope = "remaining"
    least = 0.0
    """From here on it finds nothing."""

    def run(self, problem: Problem) -> Proposal:
        """Step at each epsilon; where an example survives one, leave out the smaller ones."""
        assert problem.examples is not None
        proposal, own = super().run(problem), radii(problem)
        gives_up = (own >= self.least) & (self.least > 0)
        candidates = torch.where(gives_up.reshape(-1, 1, 1, 1), problem.inputs, proposal.candidates)
        with torch.no_grad():
            survives = problem.model(candidates).argmax(dim=1) == problem.labels
        same = problem.examples[:, None] == problem.examples[None]
        above = (same & (own[None] > own[:, None]) & survives[None]).any(dim=1)
        return Proposal(candidates, attacked=~above if problem.bracket else None)


@register_attack("test-small-remaining-rows")
class SmallRemainingRows(RemainingRows):
    """The same below epsilon 0.03; finds nothing at larger ones."""

    least = 0.03
