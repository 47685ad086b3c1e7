"""What a run will cost, by a pilot: the same run on a few of its examples.

Estimates of single attacks are upper bounds; how much is broken early decides what a run really
takes, and no one knows it before attacking.
"""

from __future__ import annotations

import dataclasses
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.api import Cost
from bench.errors import is_out_of_memory
from bench.matrix.apart import apart, here
from bench.matrix.fill import Silent
from bench.run import totals_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from bench.matrix.fill import Observer
    from bench.models.contenders import Loader
    from bench.models.counted import CountedModel
    from bench.run.prepare import Prepared

#: Examples of a pilot: one in so many of the run's, at least the second number.
ONE_IN, FEWEST = 10, 10


#: Repetitions of a pass when it is timed.
REPEATS = 5
#: Attacks ask about so many values in one call, or so many examples (`attacks.blocks.batches`).
VALUES, ROWS = 40_000, 50


@dataclass(frozen=True)
class Forecast:
    """What a run will take, as far as a pilot tells."""

    cost: Cost
    """Forwards and backwards, escalation and examination included."""
    seconds: float
    """Wall-clock, on this machine as busy as it is now."""
    pilot: int
    """Examples that the pilot attacked."""
    batch_size: int | None = None
    """The largest pass that fits into memory, where a shard's does not; None where nothing was
    found to end."""


@dataclass(frozen=True)
class _Machine:
    """What passes are timed on."""

    classes: int
    batch_size: int | None
    """Of the largest pass, as the run was told."""
    device: str
    epsilons: int
    """An attack has a row for each example at each of them."""


def forecast(prepared: Prepared, observer: Observer | None = None) -> Forecast:
    """Run the first examples in a folder of its own, which is removed, and scale.

    Passes grow with the examples. Time grows with the number of shards, and within a shard as a
    forward and a backward of the model do from the pilot's rows to the shard's, in calls of the
    size that attacks make and memory has room for, since an attack makes as many whatever its
    batch. What the pilot took beyond its tasks is taken once.

    Raises:
        ModelError: a defense does not answer with finite logits (N, classes).
        StoreError: nothing can be written to the folder of temporary files.
    """
    n = prepared.setting.n
    count = min(n, max(FEWEST, n // ONE_IN))
    with tempfile.TemporaryDirectory() as scratch:
        pilot = _pilot(prepared, count, Path(scratch))
        started = time.perf_counter()
        took = totals_of(pilot, observer or Silent())
        elapsed = time.perf_counter() - started
    size = min(prepared.setting.shard_size, n)
    arguments = (
        [contender.load for contender in prepared.contenders],
        prepared.examples.take(range(size)).inputs,
        min(count, size),
        _Machine(
            prepared.examples.classes,
            prepared.config.batch_size,
            prepared.device,
            len(prepared.setting.epsilons),
        ),
    )
    growing = apart(_growth, *arguments) if prepared.workers else here(_growth, *arguments)
    ratio, fits = growing
    growth = ratio * n / size
    beside = max(1, prepared.workers)
    around = max(0.0, elapsed - took.seconds / beside)
    seconds = took.seconds * max(1.0, growth) / beside + around
    return Forecast(Cost(took.forwards, took.backwards) * (n / count), seconds, count, fits)


def _pilot(prepared: Prepared, count: int, folder: Path) -> Prepared:
    """The same run on the first `count` of its examples."""
    escalation = prepared.escalation_budget * count // prepared.setting.n
    config = dataclasses.replace(
        prepared.config, out=folder, budget=None, escalation_budget=escalation
    )
    return dataclasses.replace(prepared.on(prepared.examples.take(range(count))), config=config)


def _growth(
    say: Callable[[str], None],
    loaders: Sequence[Loader],
    examples: Tensor,
    few: int,
    machine: _Machine,
) -> tuple[float, int | None]:
    """How much longer a pass of all examples takes than one of a few; the median defense.

    Where memory ends they are passed in halves, as a task would, and the smallest size that was
    needed is told as well.
    """
    from bench.models.ambient import plain_torch
    from bench.models.counted import CountedModel
    from bench.run.verification.asking import Asked

    ratios, sizes = [], []
    with plain_torch(machine.device):
        inputs = examples.to(machine.device)
        for load in loaders:
            model = CountedModel(load(), machine.classes, machine.batch_size, machine.device)
            asked = Asked(model, len(inputs))
            whole, part = (
                asked.again(_seconds, some, machine.epsilons) for some in (inputs, inputs[:few])
            )
            ratios.append(whole / part)
            if model.batch_size != machine.batch_size:
                sizes.append(model.batch_size)
    return statistics.median(ratios), min(filter(None, sizes), default=None)


def _seconds(model: CountedModel, inputs: Tensor, copies: int) -> float:
    """Of a forward and a backward, or as far as there is a way back; the fastest of some.

    Of each input so many copies are asked about, in calls of the size that attacks make.
    """
    import torch

    rows = len(inputs) * copies
    most = max(ROWS, VALUES // inputs[0].numel(), len(inputs))
    inputs = inputs.repeat(copies, 1, 1, 1)[:most]

    def once() -> float:
        started = time.perf_counter()
        try:
            logits = model(inputs.clone().requires_grad_())
            if logits.requires_grad:
                logits.sum().backward()
        except Exception as error:  # a model may raise anything: here it is only timed
            if is_out_of_memory(error):
                raise
        if inputs.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    return min(once() for _ in range(REPEATS)) * rows / len(inputs)
