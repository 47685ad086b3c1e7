"""The model as attacks see it: exact counts, split batches, and rows that cannot spoil others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from bench.errors import ModelError, NonFiniteLogitsError
from bench.models.counted import CountedModel
from bench.models.manner import Manner


class Recording(nn.Module):
    """A small network that remembers the batches it got, and refuses what is not finite."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 3))
        self.batches: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits; remembers the size of the batch."""
        assert bool(torch.isfinite(x).all())
        self.batches.append(len(x))
        out: Tensor = self.layers(x)
        return out


class Function(nn.Module):
    """Any function as a module."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> object:
        """Whatever the function returns."""
        return self.function(x)  # type: ignore[operator]


def counted(batch_size: int | None = None) -> tuple[CountedModel, Recording]:
    """A counted model, and the module inside."""
    module = Recording()
    return CountedModel(module, 3, batch_size, "cpu"), module


def images(count: int) -> Tensor:
    """Random inputs of shape (count, 1, 4, 4)."""
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("batch_size", [None, 3, 10])
def test_counts_every_example_of_every_pass(batch_size: int | None) -> None:
    """Two backward passes through one kept graph count twice, split or not."""
    model, _ = counted(batch_size)
    x = images(7).requires_grad_()
    logits = model(x)
    for column in range(2):
        logits.backward(torch.eye(3)[column].expand(7, 3), retain_graph=True)
    model(images(5))
    assert (model.forwards, model.backwards) == (12, 14)
    assert (model.passes.forwards, model.passes.backwards) == (12, 14)
    model.reset_counts()
    assert model.passes.total == 0


def test_split_batch_gives_the_same_logits_and_gradients() -> None:
    """Splitting is invisible, but for rounding."""
    whole, split = counted()[0], counted(3)[0]
    gradients, logits = [], []
    for model in (whole, split):
        x = images(7).requires_grad_()
        logits.append(model(x))
        gradients.append(torch.autograd.grad(logits[-1].square().sum(), x)[0])
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_split_batch_keeps_nothing_between_its_parts() -> None:
    """No part is larger than allowed, and the backward pass computes each part again."""
    model, module = counted(3)
    x = images(7).requires_grad_()
    logits = model(x)
    assert module.batches == [3, 3, 1]
    logits.sum().backward()
    assert sorted(module.batches) == [1, 1, 3, 3, 3, 3]


def test_small_batch_is_computed_once() -> None:
    """What fits is neither split nor computed again."""
    model, module = counted(7)
    x = images(7).requires_grad_()
    model(x).sum().backward()
    assert module.batches == [7]


def test_rows_that_are_not_finite_do_not_reach_the_module() -> None:
    """Their logits are NaN, their gradient is zero, and their mates are untouched."""
    model, _ = counted()
    x = images(4)
    expected = model(x)
    x[1, 0, 2, 2], x[3, 0, 0, 0] = float("nan"), float("inf")
    x.requires_grad_()
    logits = model(x)
    assert logits.isnan().all(dim=1).tolist() == [False, True, False, True]
    torch.testing.assert_close(logits[[0, 2]], expected[[0, 2]])
    (gradient,) = torch.autograd.grad(logits[[0, 2]].sum(), x)
    assert bool(torch.isfinite(gradient).all())
    assert gradient.flatten(1).abs().sum(dim=1).ne(0).tolist() == [True, False, True, False]


def test_logits_that_are_not_finite_are_an_error() -> None:
    """Finite inputs answered with NaN or infinity stop the attack, counted in the message."""

    def half_broken(x: Tensor) -> Tensor:
        logits = torch.zeros(len(x), 3)
        logits[0, 1], logits[2, 0] = float("nan"), float("inf")
        return logits

    model = CountedModel(Function(half_broken), 3, None, "cpu")
    with pytest.raises(NonFiniteLogitsError, match="2 of 5 finite inputs"):
        model(images(5))


def test_empty_batch_has_no_logits() -> None:
    """Nothing in, nothing out, of the right width, whatever the module does with nothing."""
    model, module = counted()
    assert model(images(0)).shape == (0, 3)
    assert module.batches == []


@pytest.mark.parametrize(
    ("output", "got"),
    [
        (lambda x: torch.zeros(len(x), 4), r"\(5, 4\)"),
        (lambda x: torch.zeros(len(x)), r"\(5,\)"),
        (lambda x: torch.zeros(1, 3), r"\(1, 3\)"),
        (lambda x: (x, torch.zeros(len(x), 3)), "tuple of"),
    ],
)
def test_output_of_another_shape_is_an_error(output: object, got: str) -> None:
    """The message names what was expected and what came."""
    model = CountedModel(Function(output), 3, None, "cpu")
    with pytest.raises(ModelError, match=rf"\(5, 3\).*got {got}"):
        model(images(5))


def test_logits_are_float32_whatever_the_module_computes_in() -> None:
    """A half-precision module answers in float32, and gets contiguous float32."""
    seen = []

    def half(x: Tensor) -> Tensor:
        seen.append((x.dtype, x.is_contiguous()))
        return x.flatten(1)[:, :3].bfloat16()

    model = CountedModel(Function(half), 3, None, "cpu")
    x = torch.rand(2, 4, 4, 3, dtype=torch.float64).permute(0, 3, 1, 2)
    assert model(x).dtype is torch.float32
    assert seen == [(torch.float32, True)]


def test_module_is_frozen_and_stays_in_eval_mode() -> None:
    """No library can put it back into training."""
    model, module = counted()
    model.train()
    assert not model.training
    assert not module.training
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_halving_starts_at_the_largest_batch_seen_and_ends_at_one() -> None:
    """Halving what is larger than any batch would not help; below 1 there is nothing."""
    model, _ = counted(1000)
    model(images(7))
    sizes = []
    while model.halve():
        sizes.append(model.batch_size)
    assert sizes == [4, 2, 1]


class Singly(nn.Module):
    """Says how many came with each input; memory ends where one comes alone, if it is to."""

    ends = False

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, 3)."""
        if self.ends and len(x) == 1:
            raise torch.OutOfMemoryError("out of memory")
        return torch.full((len(x), 3), float(len(x)))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_each_input_has_a_pass_of_its_own(batch_size: int | None) -> None:
    """Counted once; what comes later is asked in batches as before."""
    model = CountedModel(Singly(), 3, batch_size, "cpu")
    assert model.singly(images(5)).eq(1).all()
    assert model.forwards == 5
    assert model(images(4)).eq(4).all()


def test_memory_that_ends_in_a_pass_of_one_halves_the_largest_batch() -> None:
    """What is kept of that fills it: how many are asked alone after each other says nothing."""
    module = Singly()
    model = CountedModel(module, 3, None, "cpu")
    model(images(7))
    module.ends = True
    with pytest.raises(torch.OutOfMemoryError):
        model.singly(images(3))
    assert model.asked == 7
    assert model.halve()
    assert model.batch_size == 4


class Convolving(nn.Module):
    """A convolution, then every value of an image in a row, by a way that may want it contiguous.

    It remembers whether what it got lay in channels_last alone.
    """

    def __init__(self, flatten: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.flatten = nn.Conv2d(2, 3, 3), flatten
        self.last: list[bool] = []

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, 12)."""
        last = x.is_contiguous(memory_format=torch.channels_last)
        self.last.append(last and not x.is_contiguous())
        return self.flatten(self.layer(x))


@pytest.mark.parametrize(
    ("flatten", "last"), [(lambda x: x.flatten(1), True), (lambda x: x.view(len(x), -1), False)]
)
def test_convolutions_on_a_cpu_get_channels_last_where_they_take_it(
    flatten: Callable[[Tensor], Tensor], last: bool
) -> None:
    """The same logits and gradients; neither inputs nor weights are left lying otherwise."""
    module = Convolving(flatten)
    model, x = CountedModel(module, 12, None, "cpu"), torch.rand(5, 2, 4, 4).requires_grad_()
    expected = module(x)
    (slope,) = torch.autograd.grad(expected.square().sum(), x)
    model.probe(x.detach())
    module.last.clear()
    found = model(x)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found.square().sum(), x)
    torch.testing.assert_close(gradient, slope)
    assert gradient.is_contiguous()
    assert module.last == [last]
    assert found.is_contiguous()
    assert module.layer.weight.is_contiguous()


def test_other_modules_get_images_as_they_come() -> None:
    """So do all on a GPU."""
    for module in (nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), nn.Identity()):
        assert Manner.at_first(module, torch.device("cpu")) == Manner()
    assert Manner.at_first(nn.Conv2d(1, 1, 1), torch.device("cuda")) == Manner()
