"""k-WTA against a reference that sorts, one example at a time."""

import pytest
import torch
from torch import Tensor

from bench.errors import ModelError, UsageError
from defenses.activations import KWTA


def reference(x: Tensor, gamma: float, *, exact: bool) -> Tensor:
    """The definition in plain Python: sort all units of an example, look at the k-th largest."""
    out = torch.zeros(x.shape, dtype=x.dtype)
    for source, target in zip(x.reshape(len(x), -1), out.view(len(x), -1), strict=True):
        values = source.tolist()
        k = max(1, int(gamma * len(values)))
        if exact:
            kept = sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]
        else:
            kth = sorted(values, reverse=True)[k - 1]
            kept = [i for i, value in enumerate(values) if value >= kth]
        target[kept] = source[kept]
    return out


def draw(kind: str) -> Tensor:
    """Inputs (4, 6, 5, 5) or (4, 30) of one kind."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, 5, 5, generator=generator)
    return {
        "random": x,
        "linear": x.flatten(1)[:, :30].contiguous(),
        "constant": torch.full_like(x, 0.7),
        "zero": torch.zeros_like(x),
        "tied": (x * 2).round() / 2,
        "negative": -x.abs() - 0.1,
        "float16": x.half(),
        "bfloat16": x.bfloat16(),
        "channels_last": x.to(memory_format=torch.channels_last),
        "tied channels_last": x.round().to(memory_format=torch.channels_last),
        "infinite": torch.where(x > 1.5, torch.inf, x),
    }[kind]


KINDS = [
    "random",
    "linear",
    "constant",
    "zero",
    "tied",
    "negative",
    "float16",
    "bfloat16",
    "channels_last",
    "tied channels_last",
    "infinite",
]


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("gamma", [0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_sorting_reference(kind: str, gamma: float, exact: bool) -> None:
    """Values, dtype and memory format are those of the definition on every kind of input."""
    x = draw(kind)

    y = KWTA(gamma, exact=exact)(x)

    torch.testing.assert_close(y, reference(x, gamma, exact=exact), rtol=0, atol=0)
    assert y.stride() == x.stride()


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("kind", ["random", "linear", "tied", "negative", "channels_last"])
def test_gradient_is_the_masked_identity(kind: str, exact: bool) -> None:
    """The incoming gradient passes on winners and is zero elsewhere."""
    x = draw(kind)
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    marked = torch.where(x == 0, 1e-30, x)  # so that a winner of value zero is seen as one
    mask = reference(marked, 0.2, exact=exact) != 0
    x.requires_grad_()

    KWTA(0.2, exact=exact)(x).backward(incoming)

    torch.testing.assert_close(x.grad, incoming * mask, rtol=0, atol=0)


def test_all_ties_stay_and_exact_keeps_the_first() -> None:
    """Of a constant input the threshold keeps everything, `exact` the k lowest indices."""
    x = torch.full((1, 10), 2.0)

    assert KWTA(0.3)(x).count_nonzero() == 10
    assert KWTA(0.3, exact=True)(x).tolist() == [[2.0] * 3 + [0.0] * 7]


def test_negative_winners_stay_negative() -> None:
    """No ReLU is added."""
    assert KWTA(0.5)(torch.tensor([[-1.0, -2.0, -3.0, -4.0]])).tolist() == [[-1.0, -2.0, 0.0, 0.0]]


def test_at_least_one_unit_wins() -> None:
    """Where gamma · N is under 1, k is 1."""
    assert KWTA(0.01)(torch.tensor([[1.0, 3.0, 2.0]])).tolist() == [[0.0, 3.0, 0.0]]


@pytest.mark.parametrize(("units", "k"), [(65536, 6553), (32768, 3276), (16384, 1638), (8192, 819)])
def test_k_of_the_papers_stages(units: int, k: int) -> None:
    """As in the paper's ResNet-18 at gamma 0.1, k is int(gamma · N)."""
    assert KWTA(0.1).winners(units) == k


def test_examples_do_not_see_each_other() -> None:
    """An example's output is the same alone and in a batch."""
    x = draw("random")

    batch = KWTA(0.1)(x)

    assert all(torch.equal(KWTA(0.1)(x[i : i + 1])[0], batch[i]) for i in range(len(x)))


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("gamma", [0.01, 1.0])
def test_nan_is_refused(gamma: float, exact: bool) -> None:
    """A single NaN raises, whether or not it would be among the winners."""
    x = draw("random")
    x[2, 3, 1, 4] = torch.nan

    with pytest.raises(ModelError, match="k-WTA got NaN"):
        KWTA(gamma, exact=exact)(x)


@pytest.mark.parametrize("gamma", [0.0, -0.1, 1.01, float("nan")])
def test_gamma_out_of_range_is_refused(gamma: float) -> None:
    """The error names the rule and what was got."""
    with pytest.raises(UsageError, match=r"greater than 0 and at most 1 \(got"):
        KWTA(gamma)


def test_inputs_without_units_are_refused() -> None:
    """A vector has no dimension to choose from."""
    with pytest.raises(ModelError, match=r"got shape \(5,\)"):
        KWTA(0.1)(torch.zeros(5))
