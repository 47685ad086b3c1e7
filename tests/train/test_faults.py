"""What goes wrong in a training is told in one line, and a batch of one is no reason to end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Generator, Tensor, nn

from bench.errors import PluginError, UsageError
from bench.train import train
from bench.train.fit import batches_of
from tests.train.toys import Noisy, Stripes, Toy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.api import Examples
    from bench.data import Split


class Steep(Noisy):
    """A loss far from the largest float, and a step beyond it."""

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """A multiple of the cross-entropy."""
        return 1e20 * super().loss(model, inputs, labels, generator)


def test_a_last_step_that_blows_up_is_told(tmp_path: Path) -> None:
    """Its own loss is finite; no later one is there to show what became of the weights."""
    toy = Toy(learning_rate=1e38, epochs=1, batch_size=90)
    toy.noisy = Steep(toy.schedule, None, 0)
    with pytest.raises(UsageError, match="diverged in epoch 1: the weights are not finite"):
        train(toy, Stripes(), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Odd(Stripes):
    """Some of its images."""

    name = "odd"

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def load(self, split: Split) -> Examples:
        """The first ones."""
        return super().load(split).take(range(self.count))


def test_a_single_example_left_over_joins_the_batch_before(tmp_path: Path) -> None:
    """Batch normalisation refuses one alone; every example comes once in an epoch all the same."""
    for n in (1, 2, 32, 33, 63, 64, 65):
        batches = batches_of(torch.arange(n), 32)
        assert torch.cat(batches).tolist() == list(range(n))
        assert n == 1 or min(map(len, batches)) > 1
        assert max(map(len, batches)) <= 33
    assert [len(batch) for batch in batches_of(torch.arange(90), 32)] == [32, 32, 26]

    assert len(train(Toy(), Odd(65), out=tmp_path).curve) == 4


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda _: 1.0, r"scalar tensor that depends on the weights \(got float\)"),
        (lambda _: torch.tensor(1.0), r"got shape \(\), no gradient"),
        (lambda logits: logits.sum(dim=1), r"got shape \(32,\), a gradient"),
        (
            lambda logits: dict[int, Tensor]()[len(logits)],
            r"training ended: KeyError: '?32'? \(test_faults.py, line",
        ),
        (
            lambda logits: logits @ logits,
            r"RuntimeError: .*mat1 and mat2 .* \(test_faults.py, line",
        ),
    ],
)
def test_what_somebody_s_recipe_does_wrong_is_one_line(
    tmp_path: Path, loss: Callable[[Tensor], Any], message: str
) -> None:
    """No traceback through torch, but where in their file; nothing is left behind."""

    class Theirs(Noisy):
        def loss(
            self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
        ) -> Tensor:
            found: Tensor = loss(model(inputs))  # or whatever else it is
            return found

    toy = Toy()
    toy.noisy = Theirs(toy.schedule, None, 0)
    with pytest.raises(PluginError, match=message):
        train(toy, Stripes(), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Rigid(Toy):
    """Nothing of it can be trained."""

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """As many logits as an image has pixels."""
        return nn.Flatten()


def test_a_model_without_parameters_is_not_trained(tmp_path: Path) -> None:
    """Nothing would come of it."""
    with pytest.raises(PluginError, match="no parameters to train"):
        train(Rigid(), Stripes(), out=tmp_path)
