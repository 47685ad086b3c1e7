"""How often the judge waits for a GPU."""

import torch

from bench.matrix.judge import predict
from tests.pretended import GPU, pretended_gpu
from tests.toy_models import Sum, linear_examples


def test_those_that_are_wrong_are_asked_alone_without_a_wait_for_each() -> None:
    """As often for 20 wrong examples as for two; all of them are found, as on the CPU."""
    examples = linear_examples(20)
    waited = []
    for count in (2, 20):
        inputs, labels = examples.inputs[:count], 1 - examples.labels[:count]
        with pretended_gpu() as waits:
            module, there = Sum().to(GPU), (inputs.to(GPU), labels.to(GPU))
            waits.clear()
            prediction = predict(module, *there)
            waited.append(sum(waits.values()))
            assert bool(prediction.wrong.all())
        assert torch.equal(predict(Sum(), inputs, labels).wrong, torch.ones(count).bool())
    assert waited[0] == waited[1] <= 3
