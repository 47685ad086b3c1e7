"""What is done where memory ends: others' models go, then all that a task asks gets half."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import pytest
import torch

from bench.api import Cost, Proposal
from bench.matrix.tasks import Clean, Shard, Task
from bench.matrix.work import Bench
from bench.record.schema import Cell
from bench.registry import register_attack
from bench.run.evaluation import contender_of
from bench.threat import Epsilon, Norm
from tests.plugins import Best
from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from bench.api import Problem
    from bench.matrix.work import TaskResult
    from bench.models.contenders import Contender

N = 20


class Hungry(Sum):
    """Runs out of memory where it is asked more than it takes, like an allocator.

    It notes the sizes of the batches that it was asked.
    """

    def __init__(self, without: int = 10**9, with_gradients: int = 10**9) -> None:
        super().__init__()
        self.most = (without, with_gradients)
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the base."""
        self.sizes.append(len(x))
        if len(x) > self.most[x.requires_grad]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


@register_attack("test-asks")
class Asks(Best):
    """Asks the model for many without gradients, then the source and the model for their own."""

    needs = "source"

    def run(self, problem: Problem) -> Proposal:
        """What is found is the closed form."""
        with torch.no_grad():
            problem.model(problem.inputs.repeat(10, 1, 1, 1))
        for each in (problem.source, problem.model):
            assert each is not None
            each(problem.inputs.clone().requires_grad_()).sum().backward()
        return super().run(problem)


def bench(modules: Mapping[str, nn.Module]) -> Bench:
    """Of these models, asked as they are; transfers to `model` start from `source`."""
    contenders: dict[str, Contender] = {}
    for name, module in modules.items():
        contender = contender_of(name, module)
        contenders[name] = dataclasses.replace(contender, load=functools.partial(_same, module))
    contenders["model"] = dataclasses.replace(contenders["model"], starts={"twin": ("source", "")})
    return Bench(linear_examples(N), contenders, "cpu", None)


def _same(module: nn.Module) -> nn.Module:
    return module


def task(attack: str, defense: str = "model") -> Task:
    """One shard of all examples."""
    cell = Cell(defense=defense, attack=attack, epsilon="0.02")
    clean = Clean((0,) * N, (False,) * N, 1, (0,) * N)
    return Task(
        cell=cell, shard=Shard(0, 0, N), cells=(("key", Epsilon.parse("0.02")),), seed=0,
        norm=Norm.LINF, cost=Cost(0), active=tuple(range(N)), clean=clean,
    )  # fmt: skip


def size_of(result: TaskResult) -> int | None:
    """That the outcomes note."""
    assert not result.error
    (outcomes,) = result.outcomes
    assert outcomes.surroundings is not None
    return outcomes.surroundings.batch_size


@pytest.mark.parametrize("source", [8, 3])
def test_memory_that_ends_in_a_source_halves_what_it_is_asked(source: int) -> None:
    """And what the model is asked: the outcomes note one size for both."""
    made = {"model": Hungry(), "source": Hungry(with_gradients=source)}
    found = bench(made)
    done = found.run(task("test-asks"))
    expected = {8: 5, 3: 3}[source]
    assert size_of(done) == expected
    assert max(made["source"].sizes[-4:]) == expected
    since = made["model"].sizes[-(240 // expected) :]
    assert max(since) == expected


def test_what_ended_is_halved_and_no_larger_batch_that_fitted() -> None:
    """200 examples without gradients fit and 20 with them do not: two repetitions, not five."""
    made = {"model": Hungry(with_gradients=6), "source": Hungry()}
    assert size_of(bench(made).run(task("test-asks"))) == 5
    asked = [size for size in made["source"].sizes if size > 1]
    assert made["model"].sizes.count(200) == 1
    assert asked[:3] == [20, 10, 10]


def test_another_attack_is_asked_in_whole_batches_again() -> None:
    """What one attack had to be given is kept for it, on its defense alone."""
    found = bench({"model": Hungry(with_gradients=6), "source": Hungry()})
    sizes = [size_of(found.run(task(name))) for name in ("test-asks", "test-best", "test-asks")]
    assert sizes == [5, None, 5]
    assert size_of(found.run(task("test-best", "source"))) is None


def test_models_that_nobody_asks_go_before_batches_are_halved() -> None:
    """Once: they are loaded again when they are asked."""
    made = {"model": Sum(), "source": Sum(), "other": Sum()}
    found = bench(made)
    assert size_of(found.run(task("test-best", "other"))) is None

    class Full(Sum):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if "other" in found.loaded._models:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().forward(x)

    full = dataclasses.replace(found.contenders["model"], load=Full)
    found.contenders = found.loaded.contenders = {**found.contenders, "model": full}
    assert size_of(found.run(task("test-asks"))) is None
    assert size_of(found.run(task("test-best", "other"))) is None


def test_memory_that_ends_with_single_examples_fails_the_cell() -> None:
    """After five halvings of 20."""
    made = {"model": Hungry(with_gradients=0), "source": Hungry()}
    done = bench(made).run(task("test-asks"))
    assert (done.cause, done.error) == ("out-of-memory", "out of memory, one example at a time")
