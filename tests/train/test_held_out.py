"""Which examples are held out to choose the best epoch by."""

from __future__ import annotations

import pytest
import torch

from bench.api import Examples
from bench.train.fit import held_out


def numbered(count: int) -> Examples:
    """As many examples, each of one pixel that tells it from the others."""
    inputs = torch.arange(count).reshape(-1, 1, 1, 1) / 255
    return Examples.of(inputs, torch.arange(count) % 2, ["even", "odd"], "numbered")


@pytest.mark.parametrize(
    ("count", "asked", "held"), [(100, 0, 0), (100, 7, 7), (100, 1000, 20), (9, 1000, 1)]
)
def test_a_fifth_is_held_out_at_most(count: int, asked: int, held: int) -> None:
    """Each example is in one of the two parts, and little data can be trained on."""
    examples = numbered(count)

    training, validation = held_out(examples, asked)

    assert validation is not None or held == 0
    parts = [training.inputs] + ([validation.inputs] if validation is not None else [])
    assert [count - held, held][: len(parts)] == [len(part) for part in parts]
    assert torch.equal(torch.cat(parts).flatten().sort().values, examples.inputs.flatten())


def test_too_few_to_hold_any_out() -> None:
    """Of four examples all are trained on."""
    training, validation = held_out(numbered(4), 1000)

    assert (len(training), validation) == (4, None)
