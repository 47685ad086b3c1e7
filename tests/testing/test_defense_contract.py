"""Built-in defenses keep the contract, and for every check there is one that fails it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from bench import registry
from bench.defenses.activated import ReLU
from bench.testing import defense_rules
from bench.testing.conformance import examine
from tests.testing.faults import Shape, draw, seen

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Defense, Recipe

BUILT_IN = [
    name
    for name in registry.defenses.names()
    if registry.defenses.get(name).__module__.startswith("bench.defenses.")
]


@pytest.mark.parametrize("name", [*BUILT_IN, "kwta[kind=channel]", "kwta-at[k=3]", "lwta[group=4]"])
def test_every_defense_holds(name: str) -> None:
    """No check fails, and some pass."""
    assert [str(f) for f in examine("defense", name) if f.status == "failed"] == []


class Around(nn.Module):
    """A network with something before and after it."""

    def __init__(
        self,
        net: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda logits: logits,
    ) -> None:
        super().__init__()
        self.net, self.before, self.after = net, before, after

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.after(self.net(self.before(x)))


def wrapped(**parts: Callable[[Tensor], Tensor]) -> type[Defense]:
    """ReLU with something around it."""

    def build(self: ReLU, *, network: str, shape: Shape, classes: int) -> nn.Module:
        return Around(ReLU.build(self, network=network, shape=shape, classes=classes), **parts)

    return type("Odd", (ReLU,), {"build": build})


def forwarding(forward: Callable[[Any, Tensor], Tensor]) -> type[Defense]:
    """ReLU whose forward pass is another one; the network is `self.net`."""

    def build(self: ReLU, *, network: str, shape: Shape, classes: int) -> nn.Module:
        odd: type[Around] = type("OddModule", (Around,), {"forward": forward})
        return odd(ReLU.build(self, network=network, shape=shape, classes=classes))

    return type("Odd", (ReLU,), {"build": build})


def counting(self: Any, x: Tensor) -> Tensor:
    """Logits that grow with every call."""
    self.calls = getattr(self, "calls", 0) + 1
    logits: Tensor = self.net(x)
    grown: Tensor = logits + self.calls * torch.arange(10.0)
    return grown


def loose(self: Any, x: Tensor) -> Tensor:
    """Keeps a tensor that is no buffer."""
    self.scale = torch.ones(())
    logits: Tensor = self.net(x)
    return logits


def waking(self: Any, x: Tensor) -> Tensor:
    """Turns training mode on."""
    self.train()
    logits: Tensor = self.net(x)
    return logits


def unseeded(self: Any, x: Tensor) -> Tensor:
    """Noise that no seed decides."""
    noise = torch.randn(len(x), 10, generator=torch.Generator().manual_seed(draw()))
    logits: Tensor = self.net(x)
    return logits + noise


def fixed(self: Any, x: Tensor) -> Tensor:
    """What it learnt lies in a closure, and no state_dict has it."""
    if "secret" not in vars(self):
        self.secret = [float(draw() % 7) for _ in range(10)]
    logits: Tensor = self.net(x)
    return logits + x.new_tensor(self.secret)


class Keyed(ReLU):
    """A text that names cannot hold."""

    def __init__(self, *, tag: str = "a,b") -> None:
        super().__init__()


class OwnTwin(ReLU):
    """Its twin is itself."""

    twin = "test-conformance"


class NoTwin(ReLU):
    """Its twin is nobody."""

    twin = "rleu"


class Borrowing(ReLU):
    """Its weights have other names than those it borrows."""

    weights_of = "relu"

    def build(self, *, network: str, shape: Shape, classes: int) -> nn.Module:
        """One more level."""
        return Around(super().build(network=network, shape=shape, classes=classes))


class Apart(ReLU):
    """A surrogate that answers a little differently."""

    def surrogates(self, *, network: str, shape: Shape, classes: int) -> dict[str, nn.Module]:
        """Its weights fit; its logits do not."""
        module = self.build(network=network, shape=shape, classes=classes)
        module.register_forward_hook(lambda module, args, logits: 1.01 * logits)
        return {"off": module}


class Misfit(ReLU):
    """A surrogate of another architecture."""

    def surrogates(self, *, network: str, shape: Shape, classes: int) -> dict[str, nn.Module]:
        """One more level."""
        return {"deep": Around(self.build(network=network, shape=shape, classes=classes))}


class AnyShape(ReLU):
    """Says that it takes every shape, and does not."""

    def network(self, *, shape: Shape) -> str:
        """Always the same."""
        return "cnn-for-all"

    def build(self, *, network: str, shape: Shape, classes: int) -> nn.Module:
        """For 64 pixels."""
        return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


class NoRecipe(ReLU):
    """Returns the class in place of a recipe."""

    def recipe(self, family: str) -> Recipe:
        """Not a recipe."""
        return "natural"  # type: ignore[return-value]


class NoModule(ReLU):
    """Builds nothing."""

    def build(self, *, network: str, shape: Shape, classes: int) -> nn.Module:
        """Fails."""
        raise RuntimeError("no bricks")


DEFENSES: dict[str, tuple[type[Defense], str]] = {
    "name": (Keyed, r"cannot read 'b' in .*tag=a,b"),
    "build": (NoModule, "RuntimeError: no bricks"),
    "output": (wrapped(after=lambda logits: logits[:, :9]), r"\(8, 9\) for 8 inputs and 10"),
    "eval-mode": (forwarding(waking), "in training mode after a forward pass: the module itself"),
    "input-unchanged": (wrapped(before=lambda x: x.mul_(0.5)), "7 of 8 inputs are changed"),
    "same-seed": (forwarding(unseeded), "8 inputs get other logits when asked again with the same"),
    "keeps-no-state": (forwarding(counting), "8 inputs get other logits after the model"),
    "batch-mates": (
        wrapped(before=lambda x: x - x.mean(dim=0)), "inputs get other logits alone than in a",
    ),
    "gradient": (
        wrapped(before=lambda x: x.round()),
        "the gradient is zero on 6 of 6 inputs, and no surrogates are declared",
    ),
    "surrogates": (Apart, "logits of the surrogate 'off' differ from the model's by up to"),
    "dtype": (wrapped(after=lambda logits: logits.float()), "float64 answers in torch.float32"),
    "device": (forwarding(loose), "the module itself holds the plain tensor 'scale'"),
    "channels-last": (
        wrapped(before=lambda x: x.as_strided(x.shape, (64, 64, 8, 1))), "columns lie before",
    ),
    "save-load": (forwarding(fixed), "inputs get other logits after weights were saved and loaded"),
    "twin": (OwnTwin, "it names itself"),
    "weights-of": (Borrowing, "weights of relu do not fit: 0.bias"),
    "odd-shape": (AnyShape, "it raised RuntimeError: .*mat1 and mat2"),
    "recipe": (NoRecipe, r"recipe\('digits'\) returned str"),
}  # fmt: skip


@pytest.mark.parametrize("check", [check.id for check in defense_rules.RULES])
def test_each_check_of_a_defense_can_fail(check: str, register: Callable[[type], str]) -> None:
    """A defense that is broken in this way is told so."""
    cls, words = DEFENSES[check]
    status, text = seen("defense", register(cls), check)

    assert status == "failed", text
    assert re.search(words, text), text


@pytest.mark.parametrize(
    ("cls", "check", "words"),
    [
        (NoTwin, "twin", "unknown defense 'rleu'; did you mean 'relu'"),
        (Misfit, "surrogates", "size|Missing key|do not fit the surrogate 'deep'"),
        (wrapped(before=lambda x: x.detach()), "gradient", "cannot be computed"),
        (wrapped(after=lambda logits: logits / 0), "output", "get NaN or infinity"),
        (wrapped(after=lambda logits: logits.double()), "output", "logits are torch.float64"),
    ],
)
def test_other_faults_of_a_defense_are_named(
    cls: type[Defense], check: str, words: str, register: Callable[[type], str]
) -> None:
    """Further ways in which a check fails."""
    status, text = seen("defense", register(cls), check)

    assert status == "failed", text
    assert re.search(words, text), text
