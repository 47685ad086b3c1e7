"""A registry of the small attacks alone."""

from __future__ import annotations

import pytest

from bench.api import Attack
from bench.registry.plugins import Registry
from tests.registry.small import Still, Tuned


@pytest.fixture
def registry() -> Registry[Attack]:
    """A registry of two attacks that looks for no others."""
    registry: Registry[Attack] = Registry("attack", Attack, "bench.attacks")
    registry._discovered = True
    registry.register("still")(Still)
    registry.register("tuned")(Tuned)
    return registry
