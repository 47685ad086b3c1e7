"""What tests of canaries and honest models share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from bench import registry
from bench.api import Defense
from bench.testing import honest
from bench.testing.canaries import TWIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor, nn

    from bench.api import Examples


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def examples() -> Examples:
    """The test split of digits."""
    return honest.digits()[1]


@pytest.fixture
def inputs(examples: Examples) -> Tensor:
    """Fifty unperturbed inputs."""
    return examples.inputs[:50].clone()


@pytest.fixture
def twin() -> nn.Module:
    """The honest model that canaries are made of."""
    return honest.build(TWIN, 0)


def margin_gradient(model: nn.Module, inputs: Tensor) -> Tensor:
    """The gradient of the difference between the two largest logits, summed over examples."""
    x = inputs.clone().requires_grad_()
    top = model(x).topk(2, dim=1).values
    (gradient,) = torch.autograd.grad((top[:, 0] - top[:, 1]).sum(), x)
    return gradient


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[type], str]:
    """Registers a class under a name of its own, and forgets it afterwards."""
    for each in (registry.defenses, registry.attacks):
        each.names()
        monkeypatch.setattr(each, "_classes", dict(each._classes))

    def add(cls: type) -> str:
        each: Any = registry.defenses if issubclass(cls, Defense) else registry.attacks
        each.register("test-conformance")(cls)
        return "test-conformance"

    return add
