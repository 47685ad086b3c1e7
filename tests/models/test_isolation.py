"""What attack libraries do to global state does not outlive them."""

import random
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.models.counted import isolated_generators


def draws() -> tuple[float, float, float]:
    """The next number of each global generator."""
    return float(torch.rand(())), float(np.random.rand()), random.random()  # noqa: NPY002


def reseed() -> None:
    """What AutoAttack does to torch, and worse."""
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    random.seed(0)


def test_same_seed_same_draws_whatever_came_before() -> None:
    """The seed alone decides, for all three generators."""
    with isolated_generators(5):
        first = draws()
    draws()
    with isolated_generators(5):
        assert draws() == first
    with isolated_generators(6):
        assert all(new != old for new, old in zip(draws(), first, strict=True))


@pytest.mark.parametrize("fails", [False, True])
def test_generators_go_on_as_if_nothing_had_happened(fails: bool) -> None:
    """Reseeding inside changes nothing outside, after an error as well."""
    reseed()
    draws()
    expected = draws()
    reseed()
    draws()
    try:
        with isolated_generators(2**63):
            reseed()
            for _ in range(3):
                draws()
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert draws() == expected


@pytest.mark.parametrize(
    ("read", "spoil"),
    [
        (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
        (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
        (sys.gettrace, lambda: sys.settrace(None)),
    ],
    ids=["dtype", "grad mode", "trace function"],
)
def test_global_switches_are_put_back(
    read: Callable[[], object], spoil: Callable[[], object]
) -> None:
    """Default dtype, grad mode and the trace function survive a library that changes them."""
    outside = sys.gettrace()

    def trace(*_: object) -> None:
        return None

    sys.settrace(trace)
    try:
        before = read()
        with isolated_generators(0):
            spoil()
            assert read() != before
        after = read()
    finally:
        sys.settrace(outside)
    assert after == before
