"""Every activation with every way of training, such as `relu-at`, `kwta-trades`, `lwta-free`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.defenses.competitors import LWTA, BrokenReLU, MaxPool
from bench.defenses.kwta import KWTA
from bench.defenses.recipes import (
    TRADES,
    FastAdversarialTraining,
    FreeAdversarialTraining,
    PGDAdversarialTraining,
)
from bench.defenses.relu import ReLU
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.api import Recipe
    from bench.defenses.networks import NetworkDefense

#: Ending of the name to the recipe, and what `list` says of it.
TRAININGS: dict[str, tuple[Callable[[str], Recipe], str]] = {
    "at": (PGDAdversarialTraining, "adversarial training by PGD (Madry et al. 2018)"),
    "trades": (TRADES, "TRADES (Zhang et al. 2019)"),
    "free": (FreeAdversarialTraining, "free adversarial training (Shafahi et al. 2019)"),
    "fast": (FastAdversarialTraining, "fast adversarial training (Wong et al. 2020)"),
}
#: Name to the defense that is trained naturally, and what `list` calls its activation.
ACTIVATIONS: dict[str, tuple[type[NetworkDefense], str]] = {
    "relu": (ReLU, "ReLU"),
    "kwta": (KWTA, "k-Winners-Take-All"),
    "lwta": (LWTA, "LWTA"),
    "max-pool": (MaxPool, "max-pooling"),
    "broken-relu": (BrokenReLU, "broken ReLU"),
}


def _trained(name: str, ending: str) -> type[NetworkDefense]:
    """A defense of its own: this activation, trained this way, beside its ReLU twin."""
    base, activation = ACTIVATIONS[name]
    recipe, training = TRAININGS[ending]
    attributes = {
        "__module__": __name__,
        "__doc__": f"{activation}, {training}. Parameters are those of `{name}`.",
        "summary": f"{activation}, {training}",
        "twin": None if name == "relu" else f"relu-{ending}",
        "training": recipe,
    }
    return type(f"{base.__name__}{recipe.__name__}", (base,), attributes)


for _name in ACTIVATIONS:
    for _ending in TRAININGS:
        register_defense(f"{_name}-{_ending}")(_trained(_name, _ending))
