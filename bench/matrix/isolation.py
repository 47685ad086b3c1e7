"""Global state that attack libraries change, fixed on entry and put back on exit."""

from __future__ import annotations

import contextlib
import random
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def isolated_generators(seed: int) -> Iterator[None]:
    """Seed every global generator, and leave no trace of what happens inside.

    On exit, after an exception as well, the states of the generators of torch (CPU and CUDA),
    numpy and random, the trace function (coverage and debuggers live there), torch's default
    dtype and its grad mode are what they were.

    Args:
        seed: any integer from 0; numpy gets its lowest 32 bits.
    """
    cpu = torch.get_rng_state()
    gpus = None
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gpus = torch.cuda.get_rng_state_all()
    arrays = np.random.get_state()  # noqa: NPY002 - libraries draw from the global generator
    plain = random.getstate()
    trace = sys.gettrace()
    dtype = torch.get_default_dtype()
    gradients = torch.is_grad_enabled()
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        if gpus is not None:
            torch.cuda.set_rng_state_all(gpus)
        np.random.set_state(arrays)  # noqa: NPY002
        random.setstate(plain)
        sys.settrace(trace)
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
