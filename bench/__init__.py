"""Winnow: is this defense really robust, or has the attack merely failed?

    import bench

    result = bench.evaluate(model, inputs, labels, epsilons=["8/255"], attacks="standard")
    print(result.to_markdown())

Names are imported when they are first used, so that `import bench` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.errors import UsageError, WinnowError
    from bench.registry import register_attack, register_defense, register_suite
    from bench.run import Result, load_results
    from bench.run.evaluation import evaluate

_HOME = {
    "Result": "bench.run",
    "UsageError": "bench.errors",
    "WinnowError": "bench.errors",
    "evaluate": "bench.run.evaluation",
    "load_results": "bench.run",
    "register_attack": "bench.registry",
    "register_defense": "bench.registry",
    "register_suite": "bench.registry",
}

__all__ = [
    "Result",
    "UsageError",
    "WinnowError",
    "evaluate",
    "load_results",
    "register_attack",
    "register_defense",
    "register_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
