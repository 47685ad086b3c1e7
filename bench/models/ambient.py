"""torch's ambient state: plain while a guest is asked, and put back exactly as it was found.

A notebook may have switched gradients off, made float64 the default, or turned TensorFloat-32 on;
an attack's library may do the same on its way. Neither may move a figure, and nothing of ours may
be left behind.
"""

from __future__ import annotations

import contextlib
import random
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Switch(NamedTuple):
    """One global setting: how it is read and written, and what it is while a guest is asked."""

    read: Callable[[], Any]
    write: Callable[[Any], object]
    plain: Any

    def turn(self, value: Any) -> None:
        """Write a value where it is another: writing some of them loads half of torch."""
        if self.read() != value:
            self.write(value)


def _attribute(owner: Any, name: str, plain: Any) -> _Switch:
    return _Switch(lambda: getattr(owner, name), lambda value: setattr(owner, name, value), plain)


def _autocast(device: str) -> _Switch:
    return _Switch(
        lambda: torch.is_autocast_enabled(device),
        lambda on: torch.set_autocast_enabled(device, on),
        False,
    )


_BACKENDS: Any = torch.backends
#: Everything that decides what a computation gives or whether it can be done. The trace function
#: (coverage and debuggers live there) stays as it is inside, and survives a library that drops it.
_SWITCHES = (
    _Switch(torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    _autocast("cpu"),
    _autocast("cuda"),
    _attribute(_BACKENDS.cudnn, "enabled", True),
    # What is fastest is another algorithm each time, with other roundings.
    _attribute(_BACKENDS.cudnn, "benchmark", False),
    _attribute(_BACKENDS.cudnn, "deterministic", True),
    _Switch(
        lambda: (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
        ),
        lambda mode: torch.use_deterministic_algorithms(mode[0], warn_only=mode[1]),
        (False, False),  # it refuses what has no deterministic form, which would fail attacks
    ),
    _Switch(
        lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        lambda mode: torch.autograd.set_detect_anomaly(*mode),
        (False, True),
    ),
    _Switch(np.geterr, lambda mode: np.seterr(**mode), dict.fromkeys(np.geterr(), "ignore")),
)

#: Where float32 may be computed in less: the operations, the libraries above them, and all.
_OPERATIONS = (
    _BACKENDS.cuda.matmul,
    _BACKENDS.cudnn.conv,
    _BACKENDS.cudnn.rnn,
    _BACKENDS.mkldnn.matmul,
    _BACKENDS.mkldnn.conv,
    _BACKENDS.mkldnn.rnn,
)
_ABOVE = (_BACKENDS, _BACKENDS.cudnn, _BACKENDS.mkldnn)
#: What the older interface calls the precision of products, and the newer one of each library.
_OLDER = {"highest": ("ieee", "ieee"), "high": ("tf32", "tf32"), "medium": ("tf32", "bf16")}


@contextlib.contextmanager
def plain_torch(device: str = "", seed: int | None = None) -> Iterator[None]:
    """Ask a guest in plain surroundings, whatever the caller's are, and put those back.

    Inside gradients are recorded, tensors are float32 on the CPU unless something else is said,
    nothing is cast on its own, and float32 is computed as IEEE defines it (no TensorFloat-32). On
    exit, after an exception or Ctrl-C as well, all of that, the number of threads, the trace
    function and every global generator (torch on CPU and GPU, numpy, random) are as they were.

    Args:
        device: of the computation: on `cpu` it has one thread, because the order of additions
            would otherwise depend on the machine. Where empty the threads stay as they are.
        seed: of every global generator, any integer from 0 (numpy gets its lowest 32 bits); they
            go on from where they are where None.
    """
    with contextlib.ExitStack() as after:
        if device.startswith("cuda"):
            torch.cuda.init()  # type: ignore[no-untyped-call] # else its generator starts inside
        _keep_generators(after)
        after.callback(sys.settrace, sys.gettrace())
        after.callback(_set_threads, torch.get_num_threads())
        if device == "cpu":
            _set_threads(1)
        after.callback(torch.set_grad_enabled, torch.is_grad_enabled())
        after.enter_context(torch.inference_mode(False))
        torch.set_grad_enabled(True)
        _keep_default_device(after)
        for switch in _SWITCHES:
            after.callback(switch.turn, switch.read())
            switch.turn(switch.plain)
        after.enter_context(_full_precision())
        if seed is not None:
            _seed(seed)
        yield


def _set_threads(count: int) -> None:
    """As torch does, which takes up to a millisecond even where nothing changes."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _seed(seed: int) -> None:
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - libraries draw from the global generator
    random.seed(seed)


def _keep_generators(after: contextlib.ExitStack) -> None:
    after.callback(torch.set_rng_state, torch.get_rng_state())
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        after.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    after.callback(np.random.set_state, np.random.get_state())  # noqa: NPY002
    after.callback(random.setstate, random.getstate())


def _keep_default_device(after: contextlib.ExitStack) -> None:
    """Make tensors on the CPU unless something else is said.

    Where that is so already nothing is done: torch would look at each call of its functions.
    """
    before = torch.get_default_device()

    def put_back() -> None:
        if torch.get_default_device() != before:
            torch.set_default_device(before if before.type != "cpu" else None)

    chosen = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    if before.type == "cpu" or (chosen is not None and chosen.device.type == before.type):
        after.callback(put_back)
        if before.type != "cpu":
            torch.set_default_device(None)
    else:  # a block of the caller's, which has to end in the order of its beginning
        after.enter_context(torch.device("cpu"))


@contextlib.contextmanager
def _full_precision() -> Iterator[None]:
    """No TensorFloat-32 and nothing less, by either of torch's interfaces to it.

    The older one refuses to answer where the newer one was used, so that what it holds has to be
    found out by trying; each place of the newer one answers for those below it while it says none.
    Torch has no way back to an operation that was never set: it gets the value that it had.
    """
    effective = [place.fp32_precision for place in _OPERATIONS]
    above = []
    for place in _ABOVE:
        above.append(place.fp32_precision)
        place.fp32_precision = "none"
    own = [place.fp32_precision for place in _OPERATIONS]
    products, convolutions = _older_products(), _older_convolutions()
    torch.set_float32_matmul_precision("highest")
    _BACKENDS.cudnn.allow_tf32 = False
    _write(_OPERATIONS, ["ieee"] * len(_OPERATIONS))
    try:
        yield
    finally:
        _write(_ABOVE, ["none"] * len(_ABOVE))
        torch.set_float32_matmul_precision(products)
        _BACKENDS.cudnn.allow_tf32 = convolutions
        _write(_OPERATIONS, own)
        _write(_ABOVE[::-1], above[::-1])  # mkldnn's is in truth the place of all
        for place, value in zip(_OPERATIONS, effective, strict=True):
            if place.fp32_precision != value:
                place.fp32_precision = value


def _write(places: tuple[Any, ...], values: list[str]) -> None:
    for place, value in zip(places, values, strict=True):
        place.fp32_precision = value


def _older_products() -> str:
    """What `get_float32_matmul_precision` holds; the newer interface is changed on the way."""
    for here, there in _OLDER.values():
        _BACKENDS.cuda.matmul.fp32_precision = here
        _BACKENDS.mkldnn.matmul.fp32_precision = there
        with contextlib.suppress(RuntimeError):
            return torch.get_float32_matmul_precision()
    return "highest"


def _older_convolutions() -> bool:
    """What `cudnn.allow_tf32` holds; the newer interface is changed on the way."""
    for value in ("none", "tf32"):
        _BACKENDS.cudnn.conv.fp32_precision = _BACKENDS.cudnn.rnn.fp32_precision = value
        with contextlib.suppress(RuntimeError):
            return bool(_BACKENDS.cudnn.allow_tf32)
    return True
