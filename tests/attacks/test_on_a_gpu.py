"""Every attack on a pretended GPU: nothing it computes with is left behind on the CPU."""

import dataclasses

import pytest

from bench.api import Problem
from bench.models.ambient import plain_torch
from bench.models.counted import CountedModel
from bench.registry import attacks
from bench.threat import Norm
from tests.attacks.test_table import EPSILON, rows
from tests.attacks.worlds import network_problem
from tests.pretended import GPU, pretended_gpu

#: Where an example does not break they ask thousands of times, in the same lines.
SHORTER = {"square": "square[queries=100]"}


def moved(problem: Problem) -> Problem:
    """The same problem on the GPU."""
    assert isinstance(problem.model, CountedModel)
    model = CountedModel(problem.model.module, problem.classes, None, GPU)
    return dataclasses.replace(
        problem, model=model, inputs=problem.inputs.to(GPU), labels=problem.labels.to(GPU),
        surrogates={"first": model}, source=model,
    )  # fmt: skip


#: FAB's three norms differ in a projection alone, and take most of the time.
TRIED = [(name, norm) for name, norm in rows() if name != "fab-t" or norm is Norm.LINF]


@pytest.mark.whole
@pytest.mark.parametrize(("name", "norm"), TRIED)
def test_an_attack_computes_on_the_gpu(name: str, norm: Norm) -> None:
    """Candidates lie there, and no operation mixes two devices, in any norm it searches in."""
    attack = attacks.create(SHORTER.get(name, name))
    problem = network_problem(norm, EPSILON[norm] if attack.kind == "fixed" else None, count=2)
    with pretended_gpu(), plain_torch("cuda:0", seed=7):
        proposal = attack.run(moved(problem))
        assert proposal.candidates.device == GPU
        found = proposal.candidates.cpu()
    assert found.shape == problem.inputs.shape
    assert bool(found.isfinite().all())
