"""k-WTA's competitors against loops in plain Python, closed forms and finite differences."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from bench.defenses.activations import LWTA, BrokenReLU, MaxPoolActivation
from bench.errors import ModelError, UsageError


def draw(*shape: int) -> Tensor:
    """Random float64 values, none of them tied."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("group", [2, 4])
@pytest.mark.parametrize("shape", [(3, 8), (2, 8, 3), (2, 8, 3, 3)])
def test_groups_of_channels_against_loops(shape: tuple[int, ...], group: int) -> None:
    """Values and gradients of LWTA and the maximum, with ties, which the first member wins."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).round().requires_grad_()
    incoming = torch.randn(shape, generator=generator).round()  # so that sums are exact
    local, largest, own, summed = (torch.zeros(shape) for _ in range(4))
    for n, first, *at in itertools.product(
        range(shape[0]), range(0, 8, group), *map(range, shape[2:])
    ):
        members = [(n, c, *at) for c in range(first, first + group)]
        winner = max(members, key=lambda i: x[i].item())  # the first of equal ones
        local[winner], own[winner] = x[winner].item(), incoming[winner]
        for i in members:
            largest[i] = x[winner].item()
            summed[winner] += incoming[i]

    for module, value, gradient in (
        (LWTA(group), local, own),
        (MaxPoolActivation(group), largest, summed),
    ):
        y = module(x)
        assert torch.equal(y, value)
        assert torch.equal(torch.autograd.grad(y, x, incoming)[0], gradient)


def test_a_linear_map_of_group_maxima_is_maxout() -> None:
    """What follows sees one maximum a group, with the members' summed weights."""
    x, weights = draw(3, 30), torch.arange(60.0, dtype=torch.float64).reshape(2, 30)

    maxout = x.reshape(3, 10, 3).amax(2) @ weights.reshape(2, 10, 3).sum(2).T

    assert torch.allclose(MaxPoolActivation(3)(x) @ weights.T, maxout)


@pytest.mark.parametrize("module", [LWTA(2), MaxPoolActivation(2), BrokenReLU(0.5)])
def test_gradients_are_those_of_finite_differences(module: nn.Module) -> None:
    """Away from ties and from the jump, where they exist."""
    x = draw(1, 4, 3, 3).requires_grad_()

    assert torch.autograd.gradcheck(module, x)


@pytest.mark.parametrize("module", [LWTA(2), MaxPoolActivation(2), BrokenReLU()])
def test_the_others_hide_no_nan_and_keep_dtypes(module: nn.Module) -> None:
    """NaN beside a number is passed on; half precision stays half."""
    assert module(torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]])).isnan().any(1).all()
    assert module(draw(2, 4).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("activation", [LWTA, MaxPoolActivation])
def test_groups_have_to_fit(activation: type[LWTA | MaxPoolActivation]) -> None:
    """A group of one is refused at once, a width that it does not divide when it is met."""
    with pytest.raises(UsageError, match=r"group has to be at least 2.*got 1"):
        activation(1)
    with pytest.raises(ModelError, match=r"4 channels do not make whole groups of 3; choose"):
        activation(3)(draw(3, 4))
    with pytest.raises(ModelError, match=r"got shape \(6,\)"):
        activation(3)(torch.zeros(6))


def test_broken_relu_jumps_at_zero() -> None:
    """Above zero x; from zero down −height, where the gradient is zero."""
    x = torch.tensor([-2.0, -1e-30, -0.0, 0.0, 1e-30, 3.0], requires_grad=True)

    y = BrokenReLU(0.5)(x)

    assert y.tolist() == [-0.5, -0.5, -0.5, -0.5, x[4].item(), 3.0]
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert torch.equal(BrokenReLU(0)(x), x.relu())


@pytest.mark.parametrize("height", [-1.0, math.inf, math.nan])
def test_bad_heights_are_refused(height: float) -> None:
    """The error names the rule and what was got."""
    with pytest.raises(UsageError, match=rf"finite and at least 0 \(got {height}\)"):
        BrokenReLU(height)
