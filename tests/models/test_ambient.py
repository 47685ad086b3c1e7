"""What attack libraries do to global state does not outlive them."""

import contextlib
import random
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from bench.models.ambient import plain_torch
from tests.toy_models import Sum, attack_only, linear_examples


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
    with plain_torch(seed=5):
        first = draws()
    draws()
    with plain_torch(seed=5):
        assert draws() == first
    with plain_torch(seed=6):
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
        with plain_torch(seed=2**63):
            reseed()
            for _ in range(3):
                draws()
            if fails:
                raise RuntimeError
    except RuntimeError:
        pass
    assert draws() == expected


B: Any = torch.backends
Read = Callable[[], Any]
Write = Callable[[Any], object]


def attribute(owner: Any, name: str) -> tuple[Read, Write]:
    """How an attribute of `torch.backends` is read and written."""
    return lambda: getattr(owner, name), lambda value: setattr(owner, name, value)


#: By name: how it is read, how it is written, what it is inside, and another value.
SWITCHES: dict[str, tuple[Read, Write, Any, Any]] = {
    "default dtype": (
        torch.get_default_dtype, torch.set_default_dtype, torch.float32, torch.float64,
    ),
    "default device": (
        torch.get_default_device, torch.set_default_device, torch.device("cpu"),
        torch.device("meta"),
    ),
    "grad mode": (torch.is_grad_enabled, torch.set_grad_enabled, True, False),
    "autocast": (
        lambda: torch.is_autocast_enabled("cpu"),
        lambda on: torch.set_autocast_enabled("cpu", on), False, True,
    ),
    "autocast on a GPU": (
        lambda: torch.is_autocast_enabled("cuda"),
        lambda on: torch.set_autocast_enabled("cuda", on), False, True,
    ),
    "deterministic algorithms": (
        torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, False, True,
    ),
    "anomaly mode": (
        torch.is_anomaly_enabled, lambda on: torch.autograd.set_detect_anomaly(on), False, True,
    ),
    "cudnn.enabled": (*attribute(B.cudnn, "enabled"), True, False),
    "cudnn.benchmark": (*attribute(B.cudnn, "benchmark"), False, True),
    "cudnn.deterministic": (*attribute(B.cudnn, "deterministic"), True, False),
    "numpy's errors": (
        lambda: np.geterr()["divide"], lambda how: np.seterr(divide=how), "ignore", "raise",
    ),
    "threads": (torch.get_num_threads, torch.set_num_threads, 1, 2),
    "products (older)": (
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest", "medium",
    ),
    "convolutions (older)": (*attribute(B.cudnn, "allow_tf32"), False, True),
    "products": (*attribute(B.cuda.matmul, "fp32_precision"), "ieee", "tf32"),
    "convolutions": (*attribute(B.cudnn.conv, "fp32_precision"), "ieee", "tf32"),
    "products on the CPU": (*attribute(B.mkldnn.matmul, "fp32_precision"), "ieee", "bf16"),
    "convolutions on the CPU": (*attribute(B.mkldnn.conv, "fp32_precision"), "ieee", "bf16"),
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        # Torch loads its compiler for this one.
        pytest.param(name, marks=[pytest.mark.whole] * (name == "deterministic algorithms"))
        for name in SWITCHES
    ],
)
@pytest.mark.parametrize("fails", [False, True])
def test_what_is_found_is_plain_inside_and_put_back(name: str, fails: bool) -> None:
    """Whatever a caller's value is, and whatever a library does to it inside."""
    read, write, plain, other = SWITCHES[name]
    before = read()
    try:
        write(other)
        with contextlib.suppress(RuntimeError), plain_torch("cpu"):
            assert read() == plain
            write(other)
            if fails:
                raise RuntimeError
        assert read() == other
        write(before)
        with plain_torch("cpu"):
            write(other)
        assert read() == before
    finally:
        write(before)


@pytest.mark.parametrize("place", [B, B.cudnn, B.cuda.matmul, B.mkldnn.matmul, B.cudnn.rnn])
def test_either_interface_to_less_precision_is_put_back(place: Any) -> None:
    """Where the newer one was used the older one answers again inside, and refuses after."""
    before = place.fp32_precision
    try:
        place.fp32_precision = "tf32"
        with plain_torch():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not B.cudnn.allow_tf32
            assert B.cuda.matmul.fp32_precision == B.cudnn.conv.fp32_precision == "ieee"
        assert place.fp32_precision == "tf32"
    finally:
        place.fp32_precision = before


def test_inference_mode_and_a_device_of_a_block_end_at_the_door() -> None:
    """Tensors made inside can be differentiated and lie on the CPU; outside all is as it was."""
    with torch.inference_mode(), torch.device("meta"):
        with plain_torch():
            x = torch.ones(2, requires_grad=True)
            (gradient,) = torch.autograd.grad((x * x).sum(), x)
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        assert torch.ones(()).is_meta
    assert gradient.tolist() == [2.0, 2.0]


def test_the_trace_function_is_put_back() -> None:
    """Coverage and debuggers live there, and a library may drop it."""
    outside = sys.gettrace()

    def trace(*_: object) -> None:
        return None

    sys.settrace(trace)
    try:
        with plain_torch():
            sys.settrace(None)
        after = sys.gettrace()
    finally:
        sys.settrace(outside)
    assert after is trace


AMBIENT: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "another device": lambda: torch.device("meta"),
    "anomaly mode": lambda: torch.autograd.detect_anomaly(check_nan=True),
    "NumPy's errors": lambda: np.errstate(all="raise"),
}


@pytest.fixture(scope="module")
def plainly() -> Any:
    """What a call in plain surroundings finds."""
    return evaluated()


def evaluated() -> Any:
    """The outcomes of a linear model under a gradient attack of each source."""
    return attack_only(
        MODEL, EXAMPLES.inputs, EXAMPLES.labels, epsilons=["0.02"], attacks="pgd[steps=5],apgd-ce"
    ).outcomes_full


MODEL, EXAMPLES = Sum(), linear_examples()


@pytest.mark.parametrize("name", AMBIENT)
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_an_evaluation_is_the_same_in_any_surroundings(name: str, plainly: Any) -> None:
    """Outcome for outcome; the caller's generators go on as if nothing had happened."""
    reseed()
    expected = draws()
    reseed()
    with AMBIENT[name]():
        found = evaluated()
    assert found.equals(plainly)
    assert draws() == expected


def test_an_evaluation_is_the_same_with_another_default_dtype(plainly: Any) -> None:
    """float64 in the notebook changes no outcome."""
    torch.set_default_dtype(torch.float64)
    try:
        assert evaluated().equals(plainly)
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_tensors_of_inference_mode_are_taken(plainly: Any) -> None:
    """As inputs, labels and weights."""
    with torch.inference_mode():
        model, inputs, labels = Sum(), EXAMPLES.inputs.clone(), EXAMPLES.labels.clone()
    found = attack_only(
        model, inputs, labels, epsilons=["0.02"], attacks="pgd[steps=5],apgd-ce"
    ).outcomes_full
    assert found.equals(plainly)
