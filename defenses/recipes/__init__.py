"""How defenses are trained. Importing this does not import torch."""

from bench.defenses.recipes.pgd import Natural, PGDAdversarialTraining
from bench.defenses.recipes.settings import settings
from bench.defenses.recipes.variants import (
    TRADES,
    FastAdversarialTraining,
    FreeAdversarialTraining,
    GammaAnnealing,
)

__all__ = [
    "TRADES",
    "FastAdversarialTraining",
    "FreeAdversarialTraining",
    "GammaAnnealing",
    "Natural",
    "PGDAdversarialTraining",
    "settings",
]
