"""Defenses on digits that are broken by design, each in a few lines.

Each looks robust to an attack that trusts it, and is no more robust than the honest CNN inside.
Winnow has to break it that far or to withhold its trust, and to say why: each names the evidence
that gives it away.
"""

from __future__ import annotations

from bench.testing.canaries import answers, chance, gradients
from bench.testing.canaries.base import TWIN, Canary

__all__ = ["CANARIES", "TWIN", "Canary"]

#: Every canary by its name.
CANARIES: dict[str, type[Canary]] = {
    each.name: each
    for module in (gradients, answers, chance)
    for each in vars(module).values()
    if isinstance(each, type) and issubclass(each, Canary) and hasattr(each, "name")
}
