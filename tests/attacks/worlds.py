"""Small models with known answers, the problems they pose, and a judge of its own."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from bench.api import Problem, Proposal
from bench.models.ambient import plain_torch
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.threat import Norm

SHAPE = (1, 6, 6)
PIXELS = 36


class Function(nn.Module):
    """Any function from inputs to logits as a module."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """The function's value."""
        return self.function(x)


class Noted(nn.Module):
    """A model, and every batch that it was asked about."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.batches: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        self.batches.append(x.detach().clone())
        logits: Tensor = self.model(x)
        return logits


def column(*logits: Tensor) -> Tensor:
    """Logits of shape (N, classes) from one tensor per class."""
    return torch.stack(logits, dim=1)


def grey(count: int, value: float = 0.5) -> Tensor:
    """Uniform grey inputs."""
    return torch.full((count, *SHAPE), value)


def builtin_attacks() -> list[str]:
    """The registered attacks that Winnow brings itself, whatever other tests registered."""
    return [n for n in attacks.names() if attacks.get(n).__module__.startswith("bench.attacks.")]


def pose(
    module: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    *,
    norm: Norm = Norm.LINF,
    epsilon: float | None = 0.1,
    classes: int,
) -> Problem:
    """A problem as the matrix poses it; the model is its own surrogates and source."""
    model = CountedModel(module, classes, None, "cpu")
    return Problem(
        model,
        inputs,
        labels,
        norm,
        epsilon,
        classes,
        seed=7,
        surrogates={"first": model, "second": model},
        source=model,
    )


def solve(name: str, problem: Problem, seed: int = 7) -> Proposal:
    """Run an attack as the matrix does: all generators seeded, and put back."""
    with plain_torch(seed=seed):
        return attacks.create(name).run(problem)


def distances(norm: Norm, a: Tensor, b: Tensor) -> np.ndarray:
    """Distances computed by NumPy in float64, shape (N,)."""
    delta = np.abs(b.numpy().astype(np.float64) - a.numpy().astype(np.float64)).reshape(len(a), -1)
    order = {Norm.LINF: np.inf, Norm.L2: 2, Norm.L1: 1}[norm]
    return np.asarray(np.linalg.norm(delta, ord=order, axis=1))


def broken(problem: Problem, proposal: Proposal) -> np.ndarray:
    """Which candidates are adversarial: finite, in ball and box, misclassified. Bool (N,)."""
    candidates = proposal.candidates
    assert candidates.shape == problem.inputs.shape
    flat = candidates.numpy().reshape(len(candidates), -1)
    inside = np.isfinite(flat).all(1) & (flat >= 0).all(1) & (flat <= 1).all(1)
    if problem.epsilon is not None:
        inside &= distances(problem.norm, problem.inputs, candidates) <= problem.epsilon + 1e-6
    with torch.no_grad():
        wrong = problem.model(candidates).argmax(dim=1) != problem.labels
    return np.asarray(inside & wrong.numpy())


def linear_problem(classes: int, norm: Norm, count: int) -> tuple[Problem, np.ndarray]:
    """A linear model around the middle of the box, and each example's exact distance.

    The distance to the border with class j is the margin over the dual norm of the difference of
    the weights; the smallest one is exact, because no perturbation of that size meets the box.
    Epsilon lies half-way between two of these distances.
    """
    generator = torch.Generator().manual_seed(classes)
    weights = torch.randn(classes, PIXELS, generator=generator)
    inputs = 0.5 + 0.05 * torch.randn(count, *SHAPE, generator=generator)
    module = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, classes))
    linear = module[1]
    assert isinstance(linear, nn.Linear)
    linear.weight.data, linear.bias.data = weights, -weights.sum(dim=1) / 2
    with torch.no_grad():
        logits = module(inputs).double().numpy()
    labels = logits.argmax(1)
    dual = {Norm.LINF: 1, Norm.L2: 2, Norm.L1: np.inf}[norm]
    exact = np.full(count, np.inf)
    for row, label in enumerate(labels):
        for other in set(range(classes)) - {int(label)}:
            difference = weights[label].double().numpy() - weights[other].double().numpy()
            margin = logits[row, label] - logits[row, other]
            exact[row] = min(exact[row], margin / np.linalg.norm(difference, ord=dual))
    ordered = np.sort(exact)
    epsilon = float(ordered[count // 2 - 1] + ordered[count // 2]) / 2
    assert epsilon < 0.3
    target = torch.from_numpy(labels)
    return pose(module, inputs, target, norm=norm, epsilon=epsilon, classes=classes), exact


def network_problem(norm: Norm, epsilon: float | None, classes: int = 4, count: int = 6) -> Problem:
    """An untrained network on digits-like inputs: many pixels are black, some white."""
    generator = torch.Generator().manual_seed(3)
    inputs = (1.6 * torch.rand(count, *SHAPE, generator=generator) - 0.3).clamp(0, 1)
    with plain_torch(seed=1):
        module = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(6 * PIXELS, classes)
        )
    with torch.no_grad():
        logits = module(inputs)
        module[3].bias.data -= logits.mean(dim=0)
        labels = module(inputs).argmax(dim=1)
    return pose(module, inputs, labels, norm=norm, epsilon=epsilon, classes=classes)


def unbreakable_problem(norm: Norm, classes: int = 5, count: int = 2) -> Problem:
    """A linear model with gradients and a bias that no perturbation overcomes."""
    problem = linear_problem(classes, norm, 4)[0]
    module = problem.model.module
    assert isinstance(module, nn.Sequential)
    linear = module[1]
    assert isinstance(linear, nn.Linear)
    linear.weight.data *= 1e-2
    linear.bias.data = 100.0 * (torch.arange(classes) == 0)
    labels = torch.zeros(count, dtype=torch.long)
    return pose(module, problem.inputs[:count], labels, norm=norm, classes=classes)
