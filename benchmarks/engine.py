"""Our own engine of AutoAttack against pyautoattack: small models, all norms, attack by attack.

    python benchmarks/engine.py --n 50 --attacks autoattack
    python benchmarks/engine.py --n 50 --attacks apgd-ce,apgd-t,fab-t,square --seeds 3

Twelve models are trained on digits within seconds: a linear one, two networks without and one with
convolutions, each plainly, on noise, and on single-step adversarial examples. Each is attacked at
one epsilon, the median of the smallest perturbations that FAB-T finds. Both sides get the same
examples, all in one batch, and the same seeds; counts are of examples that each side leaves right
by its own account, judged again here. Our Square differs in one thing: its squares reach the last
row and column.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from measuring import asking, say, surroundings, timed
from peers import by_pyautoattack
from torch import nn
from torch.nn import functional

from bench.api import Problem
from bench.data import open_dataset
from bench.models.ambient import plain_torch
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.report.writing import table
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor

CLASSES, HIDDEN, EPOCHS, BATCH = 10, 48, 12, 64
#: How far the training of the second and third kind goes from its examples.
NOISE, STEP = 0.2, 0.08


def _flat(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), *layers)


#: Networks by name.
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: _flat(nn.Linear(64, CLASSES)),
    "relu": lambda: _flat(nn.Linear(64, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES)),
    "tanh": lambda: _flat(nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, CLASSES)),
    "conv": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, CLASSES),
    ),
}  # fmt: skip
TRAININGS = ("plain", "noise", "adversarial")
MODELS = [(network, training) for network in NETWORKS for training in TRAININGS]


class Counts(NamedTuple):
    """How many examples each seed left right, and what all of them took."""

    right: list[int]
    seconds: float
    """Of the processor."""


def trained(network: str, training: str) -> nn.Module:
    """A small model of digits, always the same."""
    with plain_torch(seed=MODELS.index((network, training))):
        examples = open_dataset("digits").load("train")
        model = NETWORKS[network]()
        optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
        for _ in range(EPOCHS):
            for part in torch.split(torch.randperm(len(examples.labels)), BATCH):
                x, labels = examples.inputs[part], examples.labels[part]
                loss = functional.cross_entropy(model(_moved(model, x, labels, training)), labels)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
    return model.eval()


def _moved(model: nn.Module, x: Tensor, labels: Tensor, training: str) -> Tensor:
    if training == "noise":
        return (x + NOISE * torch.randn_like(x)).clamp(0, 1)
    if training == "adversarial":
        x = (x + STEP * (2 * torch.rand_like(x) - 1)).requires_grad_()
        (slope,) = torch.autograd.grad(functional.cross_entropy(model(x), labels), x)
        return (x + STEP * slope.sign()).clamp(0, 1).detach()
    return x


def posed(model: nn.Module, norm: Norm, n: int) -> Problem:
    """The first n examples that the model gets right, at an epsilon that breaks half of them."""
    examples = open_dataset("digits").load("test")
    with torch.no_grad():
        right = torch.where(model(examples.inputs).argmax(dim=1) == examples.labels)[0][:n]
    counted = CountedModel(model, CLASSES, None, "cpu")
    inputs, labels = examples.inputs[right].contiguous(), examples.labels[right]
    free = Problem(counted, inputs, labels, norm, None, CLASSES, seed=0)
    nearest = norm.distance(inputs, attacks.create("fab-t").run(free).candidates)
    epsilon = float(nearest.median())
    return Problem(counted, inputs, labels, norm, epsilon, CLASSES, seed=0)


def still_right(problem: Problem, candidates: Tensor) -> Tensor:
    """Bool (N,): a candidate that is no adversarial example of the ball and the box."""
    assert problem.epsilon is not None
    inside = problem.norm.distance(problem.inputs, candidates) <= problem.epsilon + 1e-6
    inside &= ((candidates >= 0) & (candidates <= 1)).flatten(1).all(dim=1)
    with torch.no_grad():
        right: Tensor = problem.model(candidates).argmax(dim=1) == problem.labels
    return ~inside | right


def ours(problem: Problem, name: str, seed: int) -> Tensor:
    """Which examples an attack of ours leaves right."""
    attack = attacks.create(name)
    asked = problem.part(torch.arange(len(problem.labels)), seed=seed)
    if attack.kind == "minimum":
        asked = problem.part(torch.arange(len(problem.labels)), seed=seed, epsilon=None)
    with plain_torch("cpu", seed=seed):
        return still_right(problem, attack.run(asked).candidates)


def theirs(problem: Problem, name: str, seed: int) -> Tensor:
    """Which examples pyautoattack leaves right."""
    assert problem.epsilon is not None
    return by_pyautoattack(
        problem.model,
        problem.inputs,
        problem.labels,
        norm=problem.norm,
        epsilon=problem.epsilon,
        seed=seed,
        members=None if name == "autoattack" else [name],
    )


def counts(
    side: Callable[[Problem, str, int], Tensor], problem: Problem, name: str, seeds: int
) -> Counts:
    """One side on one model, over so many seeds."""
    found, spent = timed(lambda: [int(side(problem, name, seed).sum()) for seed in range(seeds)])
    return Counts(found, spent.processor)


def rows(names: Sequence[str], n: int, seeds: int) -> Iterator[list[str]]:
    """The lines of the table, as they are measured."""
    for network, training in MODELS:
        model = trained(network, training)
        for norm in Norm:
            problem = posed(model, norm, n)
            for name in names:
                peer, own = (counts(side, problem, name, seeds) for side in (theirs, ours))
                yield [
                    f"{network}, {training}",
                    norm.value,
                    name,
                    f"{problem.epsilon:.3g}",
                    " ".join(map(str, peer.right)),
                    " ".join(map(str, own.right)),
                    str(max(own.right) - max(peer.right)),
                    f"{own.seconds / peer.seconds:.2f}",
                ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table, and where ours is weaker."""
    parser = asking(__doc__, n=20, full=200)
    parser.add_argument("--attacks", default="autoattack")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    header = ["model", "norm", "attack", "epsilon", "left by pyautoattack", "left by Winnow"]
    header += ["more", "seconds ratio"]
    lines: list[list[str]] = []
    with contextlib.suppress(KeyboardInterrupt):
        for row in rows(arguments.attacks.split(","), arguments.n, arguments.seeds):
            lines.append(row)
            say("\t".join(row) + "\n")
    say(table(header, lines, text=frozenset({"model", "norm", "attack"})) + "\n")
    more = [int(row[6]) for row in lines]
    allowed = -(-arguments.n // 200)
    verdict = "MISSES" if any(each > allowed for each in more) else "meets"
    say(
        f"{verdict} the aim of at most one example of 200 more: {max(more)} at most, "
        f"{sum(more)} together over {len(more)} comparisons\n"
    )
    facts: dict[str, Any] = {"data": "digits", "seeds": arguments.seeds}
    say("\n" + surroundings("cpu", n=arguments.n, seed=0, **facts))


if __name__ == "__main__":
    main()
