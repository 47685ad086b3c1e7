"""What tests of canaries and honest models share."""

from __future__ import annotations

import fcntl
import functools
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench import registry
from bench.api import Defense
from bench.testing import honest
from bench.testing.canaries import TWIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from torch import Tensor, nn

    from bench.api import Examples


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True, scope="session")
def _trained_once(shared: Path) -> Iterator[None]:
    """Honest models are trained by one of the session's processes, and read by the others."""
    train: Any = honest._built.__wrapped__

    @functools.cache
    def built(model: Any, seed: int) -> nn.Module:
        path = shared / f"{model.name}-{seed}.safetensors"
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                module: nn.Module = train(model, seed)
                save_file(module.state_dict(), path)
                return module
        with torch.random.fork_rng(devices=[]):
            module = model.architecture()
        module.load_state_dict(load_file(path))
        return module.eval().requires_grad_(False)

    built.__wrapped__ = train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(honest, "_built", built)
        yield


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
