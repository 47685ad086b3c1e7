"""The kernels of k-WTA against its plain form on the CPU, bit for bit.

Run by test_triton_kwta.py in a process of its own: under Triton's interpreter, which has to be
chosen before Triton is imported, or on a GPU.
"""

import os
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor

from bench.defenses.activations import KWTA, kwta, triton_kwta
from bench.defenses.activations.kinds import Kind
from bench.errors import ModelError

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The kernels' entry, to count its calls; under the interpreter the CPU counts as a GPU."""
    spy = Mock(wraps=triton_kwta.kwta)
    monkeypatch.setattr(triton_kwta, "kwta", spy)
    if DEVICE == "cpu":
        monkeypatch.setattr(
            kwta, "_kernels", lambda x, first: triton_kwta if triton_kwta.serves(x, first) else None
        )
    else:
        assert kwta._triton(0) is triton_kwta
        spy.reset_mock()
    return spy


def rows(units: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """One kind of values in each of 4 rows: (4, units)."""
    x = torch.randn(units, generator=torch.Generator().manual_seed(units))
    limits = torch.finfo(dtype)
    place = torch.arange(units)
    denormal = limits.tiny / 4
    special = torch.tensor(
        [torch.inf, limits.max, denormal, -0.0, -denormal, limits.min, -torch.inf, 0.0]
    )
    drawn = [
        torch.where(place % 2 == 0, x, x.round()),  # tied in part
        torch.full_like(x, -0.7),
        torch.where(place % 3 == 0, -0.0, 0.0),
        special[place % 8],
    ]
    return torch.stack(drawn).to(dtype)


def evaluated(module: KWTA, x: Tensor, incoming: Tensor) -> list[Tensor]:
    """Value and gradient, as the bits of their floats, on the CPU."""
    x = x.detach().requires_grad_()
    y = module(x)
    (gradient,) = torch.autograd.grad(y, x, incoming)
    return [each.detach().cpu().view(INTEGERS[x.dtype]) for each in (y, gradient)]


def assert_same(module: KWTA, x: Tensor, kernels: Mock, *, calls: int = 1) -> None:
    """The same bits with the kernels, called so often, and without them."""
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)
    found = evaluated(module, x.to(DEVICE), incoming.to(DEVICE))
    assert kernels.call_count == calls
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kwta, "_kernels", lambda *_: None)
        expected = evaluated(module, x, incoming)
    assert all(map(torch.equal, expected, found))


CASES = [(1, 1), (7, 3), (50, 1), (100, 70), (128, 128)]
ON_GPU = [(65536, 6553), (32768, 3276), (16384, 1638), (8192, 819), (8193, 8193), (50000, 1)]


@pytest.mark.parametrize(("units", "k"), CASES + ON_GPU * (DEVICE == "cuda"))
def test_float32(units: int, k: int, kernels: Mock) -> None:
    """Groups of every size, few and all winners."""
    assert_same(KWTA(k=k), rows(units), kernels)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("units", "k"), [(100, 30), *ON_GPU * (DEVICE == "cuda")])
def test_half_precision(units: int, k: int, dtype: torch.dtype, kernels: Mock) -> None:
    """What autocast hands over."""
    assert_same(KWTA(k=k), rows(units, dtype), kernels)


def test_more_units_than_are_read_at_a_time(kernels: Mock) -> None:
    """The histograms of all blocks of a group add up."""
    assert_same(KWTA(), rows(9001)[:1], kernels)


@pytest.mark.parametrize("kind", ["magnitude", "smallest"])
def test_scores(kind: Kind, kernels: Mock) -> None:
    """By |x| and by −|x|."""
    assert_same(KWTA(k=8, kind=kind), rows(30), kernels)


def test_a_smooth_gradient_of_what_the_kernels_chose(kernels: Mock) -> None:
    """It follows from the values, which are theirs; only sigmoids differ in their last bits."""
    module, x = KWTA(k=3), rows(30)[:1]
    module.soften(0.1, 1.0)
    point, other = (x.clone().to(device).requires_grad_() for device in (DEVICE, "cpu"))
    (found,) = torch.autograd.grad((module(point) ** 2).sum(), point)
    assert kernels.call_count == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kwta, "_kernels", lambda *_: None)
        (expected,) = torch.autograd.grad((module(other) ** 2).sum(), other)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_a_channel_each(kernels: Mock) -> None:
    """The groups of `channel` lie one after another in a contiguous input."""
    assert_same(KWTA(0.5, kind="channel"), rows(60)[[0, 3]].reshape(2, 3, 4, 5), kernels)


def test_channels_last_is_read_where_it_lies(kernels: Mock) -> None:
    """An example is one block whatever the order; the gradient may come in another."""
    x = rows(60)[[0, 3]].reshape(2, 3, 4, 5).to(memory_format=torch.channels_last)

    assert_same(KWTA(0.3), x, kernels)
    assert KWTA(0.3)(x[:1].to(DEVICE)).stride()[1:] == x.stride()[1:]


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (
            KWTA(kind="channel"),
            rows(60).reshape(4, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        ),
        (KWTA(), rows(60)[:, ::2]),
        (KWTA(exact=True), rows(60)),
        (KWTA(), rows(60)[:0]),
    ],
)
def test_what_the_kernels_do_not_serve(module: KWTA, x: Tensor, kernels: Mock) -> None:
    """Scattered groups, exactly k, and empty batches go the plain way."""
    assert_same(module, x, kernels, calls=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_nan_is_refused(dtype: torch.dtype, sign: float, kernels: Mock) -> None:
    """Also one among infinities, and in a group of its own."""
    x = rows(20, dtype)[2:].to(DEVICE)
    x[1, 17] = torch.tensor(torch.nan).copysign(torch.tensor(sign))

    with pytest.raises(ModelError, match="k-WTA got NaN"):
        KWTA(k=1)(x)
    assert kernels.called


def test_the_gradient_is_linear_in_what_comes_in(kernels: Mock) -> None:
    """Its own derivative is the same mask."""
    x = torch.tensor([[3.0, 1.0, 2.0, 0.0]], device=DEVICE, requires_grad=True)
    incoming = torch.ones_like(x, requires_grad=True)

    (gradient,) = torch.autograd.grad(KWTA(0.5)(x), x, incoming, create_graph=True)

    assert kernels.called
    again = torch.tensor([[5.0, 6.0, 7.0, 8.0]], device=DEVICE)
    (second,) = torch.autograd.grad(gradient, incoming, again)
    assert second.tolist() == [[5.0, 0.0, 7.0, 0.0]]
