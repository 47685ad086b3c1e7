"""How often the judge, and who stores what it found, wait for a GPU."""

import torch

from bench.api import Cost
from bench.matrix.judge import predict
from bench.matrix.tasks import Clean, Shard, Task
from bench.matrix.work import Bench
from bench.models.counted import CountedModel
from bench.record.schema import Cell
from bench.run.evaluation import contender_of
from bench.threat import Epsilon, Norm
from tests.pretended import GPU, pretended_gpu
from tests.toy_models import Sum, linear_examples


def test_those_that_are_wrong_are_asked_alone_without_a_wait_for_each() -> None:
    """As often for 20 wrong examples as for two; all of them are found, as on the CPU."""
    examples = linear_examples(20)
    waited = []
    for count in (2, 20):
        inputs, labels = examples.inputs[:count], 1 - examples.labels[:count]
        with pretended_gpu() as waits:
            model, there = CountedModel(Sum(), 2, None, GPU), (inputs.to(GPU), labels.to(GPU))
            waits.clear()
            prediction = predict(model, *there)
            waited.append(sum(waits.values()))
            assert bool(prediction.wrong.all())
        model = CountedModel(Sum(), 2, None, "cpu")
        assert torch.equal(predict(model, inputs, labels).wrong, torch.ones(count).bool())
    assert waited[0] == waited[1] <= 3


def test_a_task_waits_as_often_for_20_broken_examples_as_for_two() -> None:
    """Whatever the attack does: what is judged, and what of it is kept, is read together."""
    waited = []
    for count in (2, 20):
        cell = Cell(defense="model", attack="fgsm", epsilon="1")
        task = Task(
            cell=cell, shard=Shard(0, 0, count), cells=(("key", Epsilon.parse("1")),), seed=0,
            norm=Norm.LINF, cost=Cost(0), active=tuple(range(count)),
            clean=Clean((0,) * count, (False,) * count, 1, (0,) * count),
        )  # fmt: skip
        contenders = {"model": contender_of("model", Sum())}
        with pretended_gpu() as waits:
            done = Bench(linear_examples(count), contenders, "cuda:0", None).run(task)
            waited.append(sum(n for place, n in waits.items() if place.startswith("matrix/")))
        assert len(done.found) == count, done.error
    assert waited[0] == waited[1]
