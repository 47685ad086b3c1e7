"""Activation functions that take the place of ReLU in a network.

Names are imported when they are first used: `bench.defenses.activations.kinds` is free of torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.defenses.activations.competitors import LWTA, BrokenReLU, MaxPoolActivation
    from bench.defenses.activations.kwta import KWTA

_HOME = {
    "KWTA": "bench.defenses.activations.kwta",
    "LWTA": "bench.defenses.activations.competitors",
    "BrokenReLU": "bench.defenses.activations.competitors",
    "MaxPoolActivation": "bench.defenses.activations.competitors",
}

__all__ = ["KWTA", "LWTA", "BrokenReLU", "MaxPoolActivation"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
