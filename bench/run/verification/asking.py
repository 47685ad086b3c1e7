"""A model, asked as the run asked it: in its batches, or smaller ones where memory ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.errors import WinnowError, is_out_of_memory
from bench.matrix.judge import predict
from bench.record.provenance import AS_THEY_COME, Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from bench.api import Examples
    from bench.matrix.judge import Prediction
    from bench.models.counted import CountedModel
    from bench.record.schema import RunRecord

#: Libraries whose version can change what a model answers.
ANSWERING = ("torch", "torchvision", "numpy")
#: Apart from this, answers in a batch and alone are one; a batch that is normalised differs more.
ALONE = 1e-3


def same_machine(record: RunRecord, device: str) -> bool:
    """Whether answers have to be the same: processor or GPU, versions, and images as they lay."""
    origin, here = record.provenance, Surroundings.of(device)
    versions = origin.get("versions")
    return (
        here.device == record.judging["device"]
        and origin.get("device_name") == here.device_name
        and origin.get("layout", AS_THEY_COME) == here.layout
        and origin.get("instructions", "") == here.instructions
        and isinstance(versions, dict)
        and all(versions.get(name) == here.versions.get(name) for name in ANSWERING)
    )


@dataclass
class Asked:
    """A model in the batches of the run, smaller ones where memory ends."""

    model: CountedModel
    size: int

    def again(self, ask: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        """Ask, and once more with half the batch while memory ends.

        Raises:
            WinnowError: it ends with a single example in it.
        """
        while True:
            try:
                return ask(self.model, *arguments, **keywords)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                if not self.model.halve():
                    raise WinnowError("out of memory, one example at a time") from error

    def predict(self, inputs: Tensor, examples: Examples, draws: int) -> Prediction:
        """What the model says of these inputs, which belong to these examples."""
        labels = examples.labels.to(inputs.device)
        found: Prediction = self.again(predict, inputs, labels, draws=draws)
        return found

    def depends_on_batch(self, inputs: Tensor) -> bool:
        """Whether the model answers otherwise alone than in a batch, beyond rounding."""
        import torch

        with torch.no_grad():
            together = self.again(lambda model: model(inputs))
            alone = self.again(lambda model: model.singly(inputs))
        return not torch.allclose(together, alone, rtol=ALONE, atol=ALONE)


def blocks_of(examples: Examples, size: int) -> Iterator[tuple[int, Examples]]:
    """The examples in shards, each with the index of its first."""
    return zip(range(0, len(examples), size), examples.blocks(size), strict=True)
