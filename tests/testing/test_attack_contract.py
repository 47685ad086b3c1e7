"""For every check of an attack there is one that fails it, and an honest one passes all."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from bench.api import Attack, Cost, Problem, Proposal
from bench.api.attacks import radii
from bench.errors import UsageError
from bench.testing import attack_rules, attack_subject
from bench.testing.conformance import examine
from bench.threat import Norm
from tests.testing.faults import Shape, draw, seen

if TYPE_CHECKING:
    from collections.abc import Callable


class Honest(Attack):
    """One step by the sign of the gradient, in Linf alone."""

    summary = "for tests"
    norms = frozenset({Norm.LINF})
    each_row = True
    deterministic = True

    def cost(self, *, norm: Norm, shape: Shape, classes: int) -> Cost:
        """One of each."""
        return Cost(1, 1)

    def run(self, problem: Problem) -> Proposal:
        """Step."""
        x = problem.inputs.clone().requires_grad_()
        logits = problem.model(x)
        loss = nn.functional.cross_entropy(logits, problem.labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x)
        moved = x.detach() + gradient.sign()
        return Proposal(problem.norm.project(problem.inputs, moved, radii(problem)))


def running(run: Callable[[Any, Problem], Any], **members: Any) -> type[Attack]:
    """`Honest` with another `run`."""
    return type("Odd", (Honest,), {"run": run, **members})


def after(change: Callable[[Problem], object]) -> type[Attack]:
    """`Honest`, and something done afterwards."""

    def run(self: Honest, problem: Problem) -> Proposal:
        proposal = Honest.run(self, problem)
        change(problem)
        return proposal

    return running(run)


def beyond(self: Any, problem: Problem) -> Proposal:
    """White noise over the whole box, far beyond epsilon."""
    return Proposal(1 - problem.inputs.round())


def drifting(self: Any, problem: Problem) -> Proposal:
    """Goes a little further with every call."""
    self.calls = getattr(self, "calls", 0) + 1
    return Proposal((problem.inputs - 0.01 * self.calls).clamp(0, 1))


def unseeded_attack(self: Any, problem: Problem) -> Proposal:
    """Noise that no seed decides."""
    noise = torch.rand(problem.inputs.shape, generator=torch.Generator().manual_seed(draw()))
    return Proposal((problem.inputs + 0.01 * noise).clamp(0, 1))


def tamper(problem: Problem) -> None:
    """Negate a weight in place."""
    with torch.no_grad():
        next(problem.model.parameters()).neg_()


def blind(self: Any, problem: Problem) -> Proposal:
    """Without a gradient: what `Honest` is for a black-box attack."""
    moved = problem.inputs + 1
    return Proposal(problem.norm.project(problem.inputs, moved, radii(problem)))


def watch(problem: Problem) -> None:
    """Forget a hook, which changes nothing but is asked in every pass."""
    model: Any = problem.model
    model.module[0].register_forward_hook(lambda module, given, answer: None)


def patch(problem: Problem) -> None:
    """Put another function in the place of a layer's, which answers the same."""
    layer: Any = list(problem.model.modules())[-1]
    vars(layer)["forward"] = lambda x: type(layer).forward(layer, x)


def switch(problem: Problem) -> None:
    """Change what a layer computes, which no parameter of it says."""
    layer: Any = list(problem.model.modules())[2]
    layer.padding_mode = "circular"


def mixing(self: Any, problem: Problem) -> Proposal:
    """Noise for the whole batch, and the largest epsilon for all."""
    noise = torch.rand(problem.inputs.shape)
    return Proposal((problem.inputs + radii(problem).max().float() * noise).clamp(0, 1))


class Keyless(Honest):
    """A text that names cannot hold."""

    def __init__(self, *, tag: str = "a]b") -> None:
        pass


class Choosy(Honest):
    """An option that it declares for an examination and then does not take."""

    escalation = ((), ("steps=9",))

    def __init__(self, *, steps: int = 1) -> None:
        if steps > 5:
            raise UsageError(f"at most 5 steps (got {steps})")


ATTACKS: dict[str, tuple[type[Attack], str]] = {
    "name": (Keyless, "cannot read the name"),
    "norms": (type("Odd", (Honest,), {"why_not": lambda self, **setting: None}), "not search in L"),
    "runs": (running(lambda self, problem: problem.inputs), "in Linf: run.. returned Tensor"),
    "proposal": (
        running(lambda self, problem: Proposal(problem.inputs[:-1])),
        r"in Linf: the attack returned shape \(3, 1, 6, 6\) for inputs of shape \(4, 1, 6, 6\)",
    ),
    "problem-unchanged": (after(lambda p: p.labels.fill_(0)), "it changed problem.labels in place"),
    "model-unchanged": (after(tamper), "in Linf: it changed the model's weights"),
    "access": (
        type("Odd", (Honest,), {"access": "black-box"}),
        "in Linf: it is black-box, and took 4 gradients",
    ),
    "ball": (running(beyond), "misclassified candidates lie outside the box or Linf 0.15"),
    "same-seed": (running(unseeded_attack), "a second instance .* 4 of 4 candidates differ"),
    "keeps-no-state": (running(drifting), "after other examples .* 4 of 4 candidates differ"),
    "deterministic": (
        running(lambda self, problem: Proposal(torch.rand(problem.inputs.shape))),
        "another seed finds others: 4 of 4 candidates differ",
    ),
    "rows": (running(mixing), "Linf: 8 of 8 candidates differ from those of one epsilon"),
    "settings-kept": (
        after(lambda problem: torch.set_num_threads(torch.get_num_threads() + 1)),
        "it left the number of threads at",
    ),
    "cost": (after(lambda p: p.model(p.inputs)), "2 forwards for an example, and cost.. says 1"),
    "traces": (
        type("Odd", (Honest,), {"traces": ("worsened",)}), "it declares the trace 'worsened'",
    ),
    "examination": (Choosy, r"\[steps=9\]: .*: at most 5 steps \(got 9\)"),
}  # fmt: skip


@pytest.mark.parametrize("check", [check.id for check in attack_rules.RULES])
def test_each_check_of_an_attack_can_fail(check: str, register: Callable[[type], str]) -> None:
    """An attack that is broken in this way is told so."""
    cls, words = ATTACKS[check]
    status, text = seen("attack", register(cls), check)

    assert status == "failed", text
    assert re.search(words, text), text


def test_an_honest_attack_holds(register: Callable[[type], str]) -> None:
    """What the broken ones are made of passes every check, but for what white-box may do."""
    found = {f.rule.id: f.status for f in examine("attack", register(Honest))}
    assert found.pop("access") == "skipped"
    assert set(found.values()) == {"passed"}


@pytest.mark.parametrize("access", ["black-box", "noise"])
def test_what_goes_without_gradients_has_to(access: str, register: Callable[[type], str]) -> None:
    """By outputs alone, or by nothing."""
    assert seen("attack", register(running(blind, access=access)), "access") == ("passed", "")
    gradient = type("Odd", (Honest,), {"access": access})
    status, text = seen("attack", register(gradient), "access")
    assert (status, text) == ("failed", f"in Linf: it is {access}, and took 4 gradients")


def test_gradients_of_a_source_are_free(register: Callable[[type], str]) -> None:
    """A transfer is black-box, whatever it does to the model that it searches on."""

    def run(self: Honest, problem: Problem) -> Proposal:
        assert problem.source is not None
        return Honest.run(self, dataclasses.replace(problem, model=problem.source))

    name = register(running(run, access="black-box", needs="source"))
    assert {f.status for f in examine("attack", name)} == {"passed"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (watch, "in Linf: it left hooks on the model"),
        (patch, "in Linf: it left hooks on the model, or other parts in it"),
        (switch, "in Linf: the same inputs get other logits afterwards"),
    ],
)
def test_what_is_left_on_the_model_is_seen(
    change: Callable[[Problem], object], words: str, register: Callable[[type], str]
) -> None:
    """Though the weights are as they were."""
    status, text = seen("attack", register(after(change)), "model-unchanged")
    assert status == "failed"
    assert re.search(words, text), text


def test_the_robust_world_is_robust_as_far_as_it_says() -> None:
    """The best attack on a linear model, in closed form, breaks nothing at epsilon, and all beyond.

    Moving every pixel by epsilon against the difference of two rows is the exact optimum in Linf.
    """
    module, inputs, labels = attack_subject.robust_world(Norm.LINF)
    weights = dict(module.named_parameters())["1.weight"].detach()
    epsilon = float(attack_subject.EPSILONS[Norm.LINF])
    broken = []
    for size in (epsilon, 3 * epsilon):
        steps = [size * (weights[j] - weights[0]).sign().reshape(1, 6, 6) for j in (1, 2, 3)]
        broken.append(sum(int((module(inputs + s).argmax(1) != labels).sum()) for s in steps))

    assert broken[0] == 0
    assert broken[1] > 0
