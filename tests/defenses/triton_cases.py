"""The kernels of k-WTA against its plain form on the CPU, bit for bit.

Run by test_triton_kwta.py in a process of its own: under Triton's interpreter, which has to be
chosen before Triton is imported, or on a GPU.
"""

import os
from collections.abc import Callable, Iterator
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from bench.defenses.activations import KWTA, kwta, triton_kwta
from bench.defenses.activations.kinds import Kind
from tests.pretended import GPU, pretended_gpu

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
INTEGERS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mock]:
    """The kernels' entry, to count its calls; under the interpreter the CPU counts as a GPU.

    That they gave up, which the plain form would hide, is a failure.
    """
    monkeypatch.setattr(kwta, "_fallen", [])
    spy = Mock(wraps=triton_kwta.kwta)
    monkeypatch.setattr(triton_kwta, "kwta", spy)
    if DEVICE == "cpu":
        monkeypatch.setattr(
            kwta, "_kernels", lambda x, first: triton_kwta if triton_kwta.serves(x, first) else None
        )
    else:
        assert kwta._ready()
    yield spy
    assert not kwta._fallen


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


def evaluated(module: Callable[[Tensor], Tensor], x: Tensor, incoming: Tensor) -> list[Tensor]:
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


CASES = [(1, 1), (7, 3), (50, 1), (100, 70), (128, 128), (1025, 103)]
ON_GPU = [(65536, 6553), (32768, 3276), (16384, 1638), (8192, 819), (8193, 8193), (50000, 1)]
ON_GPU += [(70000, 7000), (1100, 1)]


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
    assert_same(KWTA(), rows(70001)[:1], kernels)


@pytest.fixture(params=["held", "read again", "parts"])
def long(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """No group is short: sixteen bits of it are held, or it is read again, by one or several."""
    monkeypatch.setattr(triton_kwta, "_SHORT", 32)
    if request.param != "held":
        monkeypatch.setattr(triton_kwta, "_HELD", 32)
    monkeypatch.setattr(triton_kwta, "_PART", 64)
    monkeypatch.setattr(triton_kwta, "_PROGRAMS", 1000 if request.param == "parts" else 1)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("units", "k"), [(33, 1), (100, 30)])
def test_long_groups(units: int, k: int, dtype: torch.dtype, kernels: Mock) -> None:
    """As short ones, to the last unit of a block, a word, and a part."""
    assert_same(KWTA(k=k), rows(units, dtype), kernels)


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("place", [0, 99])
def test_long_groups_with_nan(place: int, kernels: Mock) -> None:
    """Wherever it lies, its group is NaN and the others are not."""
    x = rows(100)[:3].to(DEVICE)
    x[1, place] = torch.nan
    assert KWTA(k=5)(x).isnan().all(dim=1).tolist() == [False, True, False]
    assert kernels.called


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
        (KWTA(), rows(60).t().contiguous().t()),
        (KWTA(exact=True), rows(60)),
        (KWTA(), rows(60)[:0]),
    ],
)
def test_what_the_kernels_do_not_serve(module: KWTA, x: Tensor, kernels: Mock) -> None:
    """Scattered groups, exactly k, and empty batches go the plain way."""
    assert_same(module, x, kernels, calls=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_a_group_with_nan_is_nan(dtype: torch.dtype, sign: float, kernels: Mock) -> None:
    """Also of one among infinities; the others are not, and it passes no gradient."""
    x = rows(20, dtype)[1:].to(DEVICE)
    x[2, 17] = torch.tensor(torch.nan).copysign(torch.tensor(sign))
    x.requires_grad_()

    found = KWTA(k=1)(x)
    assert found.isnan().sum(dim=1).tolist() == [0, 0, 20]
    (gradient,) = torch.autograd.grad(found, x, torch.ones_like(x))
    assert gradient.ne(0).any(dim=1).tolist() == [True, True, False]
    assert kernels.called


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_compiled_whole(layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch.compile` takes the forward and the backward pass without a break, before any other."""
    monkeypatch.setattr(kwta, "_triton", None)
    if DEVICE == "cpu":
        monkeypatch.setattr(
            kwta, "_kernels", lambda x, first: kwta._triton if kwta._ready() else None
        )
    x = torch.randn(2, 3, 4, 5, device=DEVICE).to(memory_format=layout)
    compiled = torch.compile(KWTA(0.3), fullgraph=True, backend="aot_eager")
    incoming = torch.randn(2, 3, 4, 5, device=DEVICE)
    found, expected = (evaluated(each, x, incoming) for each in (compiled, KWTA(0.3)))
    assert kwta._triton is triton_kwta
    assert all(map(torch.equal, expected, found))


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU that is there need not be pretended")
def test_the_kernels_make_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forwards and backwards through two layers, as on the CPU; the interpreter is their GPU."""
    monkeypatch.setattr(kwta, "_fallen", [])
    module = nn.Sequential(KWTA(0.5), nn.Flatten(), KWTA(k=3))
    x, incoming = rows(60).reshape(4, 3, 4, 5), torch.ones(4, 60)
    expected = evaluated(module, x, incoming)
    with pretended_gpu() as waits:
        spy = Mock(wraps=triton_kwta.kwta)
        monkeypatch.setattr(triton_kwta, "kwta", spy)
        given, incoming = x.to(GPU).requires_grad_(), incoming.to(GPU)
        waits.clear()
        y = module(given)
        (gradient,) = torch.autograd.grad(y, given, incoming)
        assert not waits
        found = [each.detach().cpu().view(torch.int32) for each in (y, gradient)]
    assert spy.call_count == 2
    assert all(map(torch.equal, expected, found))


def test_transforms_of_torch_func(kernels: Mock) -> None:
    """They differentiate and batch the plain form, which they can see."""
    x = rows(60)[[0, 3]]
    module = KWTA(0.3)
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    _, expected = evaluated(module, x, incoming)
    calls = kernels.call_count

    def weighed(one: Tensor, weights: Tensor) -> Tensor:
        answer: Tensor = module(one[None])
        return (answer * weights).sum()

    found = torch.func.vmap(torch.func.grad(weighed))(x.to(DEVICE), incoming.to(DEVICE))
    assert torch.equal(found.cpu().view(torch.int32), expected)
    assert kernels.call_count == calls


@pytest.mark.parametrize("dtype", list(INTEGERS))
def test_the_operators_are_what_they_say(dtype: torch.dtype) -> None:
    """Shapes, layouts, aliases and derivatives as declared, by torch's own check."""
    x = rows(60, dtype)[:2].reshape(2, 3, 4, 5).to(DEVICE)
    for given in (x, x.to(memory_format=torch.channels_last)):
        out, words = triton_kwta._select(given, 60, 7, 0)
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        torch.library.opcheck(triton_kwta._select, (given, 60, 7, 0), test_utils=tests)
        last = not given.is_contiguous()
        torch.library.opcheck(triton_kwta._pass, (out, words, 60, last), test_utils=tests)


def test_the_gradient_is_linear_in_what_comes_in(kernels: Mock) -> None:
    """Its own derivative is the same mask."""
    x = torch.tensor([[3.0, 1.0, 2.0, 0.0]], device=DEVICE, requires_grad=True)
    incoming = torch.ones_like(x, requires_grad=True)

    (gradient,) = torch.autograd.grad(KWTA(0.5)(x), x, incoming, create_graph=True)

    assert kernels.called
    again = torch.tensor([[5.0, 6.0, 7.0, 8.0]], device=DEVICE)
    (second,) = torch.autograd.grad(gradient, incoming, again)
    assert second.tolist() == [[5.0, 0.0, 7.0, 0.0]]


@pytest.mark.skipif(DEVICE == "cpu", reason="under the interpreter")
def test_a_gpu_is_served_by_the_kernels() -> None:
    """Where both are there, nothing hinders them; the values are those of the CPU."""
    x = torch.randn(4, 3, 8, 8)
    found = KWTA(0.2)(x.cuda()).cpu()

    assert not kwta._fallen
    assert torch.equal(found, KWTA(0.2)(x))


@pytest.mark.skipif(DEVICE == "cpu", reason="under the interpreter")
@pytest.mark.parametrize("units", [300, 4096, 65536])
def test_compiled_and_captured_on_a_gpu(units: int) -> None:
    """`torch.compile` takes the whole graph, and a CUDA graph replays it on other inputs."""
    x = torch.randn(3, units, device="cuda")
    module = KWTA(0.2)
    expected = module(x)
    assert torch.equal(torch.compile(module, fullgraph=True)(x), expected)
    graph, given = torch.cuda.CUDAGraph(), x.clone()
    with torch.cuda.graph(graph):
        out = module(given)
    given.copy_(-x)
    graph.replay()
    assert torch.equal(out, module(-x))
