"""A defense with untrained weights, and how it answers. `defense_rules` looks at it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bench import registry
from bench.errors import UsageError
from bench.models.ambient import plain_torch
from bench.testing.conformance import NotApplicableError

if TYPE_CHECKING:
    from bench.api import Defense

#: Shapes of inputs, the first that the defense has a network for is taken; and one that few have.
SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 224, 224))
ODD = (2, 7, 5)
CLASSES = 10
#: Noise, after a black and a white image.
NOISE = 6
#: How far normalised logits may differ by rounding (AutoAttack's own check).
ALIKE = 1e-4
#: The share of inputs whose logits may differ by more: where values tie, rounding decides.
TIED = 0.25


class DefenseSubject:
    """A defense, its module with untrained weights, and inputs for it.

    Args:
        name: as written.
        device: where it is asked.

    Raises:
        UsageError: there is no such defense, or it does not take these options.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self.plugin: Defense = registry.defenses.create(name)
        self.device = device

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the inputs."""
        for shape in SHAPES:
            try:
                self.plugin.network(shape=shape)
            except UsageError:
                continue
            return shape
        raise NotApplicableError(f"it has no network for any of {SHAPES}")

    @functools.cached_property
    def network(self) -> str:
        """What `network` says for these inputs."""
        return self.plugin.network(shape=self.shape)

    def build(self, seed: int = 0) -> nn.Module:
        """A new module, in eval mode."""
        with plain_torch(seed=seed):
            module = self.plugin.build(network=self.network, shape=self.shape, classes=CLASSES)
        return module.to(self.device).eval()

    @functools.cached_property
    def module(self) -> nn.Module:
        """The one that rules ask; a rule that changes it builds its own."""
        try:
            return self.build()
        except NotApplicableError:
            raise
        except Exception as error:
            raise NotApplicableError(f"it cannot be built ({type(error).__name__})") from error

    @functools.cached_property
    def surrogates(self) -> dict[str, nn.Module]:
        """Those that are declared, with the weights of `module`, in eval mode."""
        with plain_torch(seed=1):
            declared = self.plugin.surrogates(
                network=self.network, shape=self.shape, classes=CLASSES
            )
        for module in declared.values():
            module.load_state_dict(self.module.state_dict())
            module.to(self.device).eval()
        return declared

    @functools.cached_property
    def inputs(self) -> Tensor:
        """A black image, a white one, and noise: float32 (2 + NOISE, C, H, W)."""
        noise = torch.rand(NOISE, *self.shape, generator=torch.Generator().manual_seed(0))
        ends = torch.zeros(1, *self.shape), torch.ones(1, *self.shape)
        return torch.cat([*ends, noise]).to(self.device)


def ask(module: nn.Module, x: Tensor, seed: int = 0) -> Tensor:
    """Logits, from a seed."""
    with plain_torch(seed=seed), torch.no_grad():
        logits: Tensor = module(x)
    return logits


def differing(a: Tensor, b: Tensor) -> int:
    """In how many rows logits differ by more than rounding."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    size = b.norm(dim=1).clamp(min=1e-10)
    return int((~((a - b).norm(dim=1) / size <= ALIKE)).sum())


def mostly(a: Tensor, b: Tensor, what: str) -> str | None:
    """What is seen where more rows differ than ties explain."""
    count = differing(a, b)
    return f"{count} of {len(a)} inputs get other logits {what}" if count > TIED * len(a) else None


def randomised(subject: DefenseSubject) -> bool:
    """Whether another seed gets other logits."""
    answers = [ask(subject.module, subject.inputs, seed) for seed in (0, 1)]
    return differing(*answers) > 0
