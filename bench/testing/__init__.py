"""Models of known robustness, the test that verdicts are right about them, and contracts.

Importing this imports neither torch nor the models, nor pytest: `DefenseContract` and
`AttackContract` are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.testing.contracts import AttackContract, DefenseContract

__all__ = ["AttackContract", "DefenseContract"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("bench.testing.contracts"), name)
