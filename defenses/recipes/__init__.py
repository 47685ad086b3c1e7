"""How defenses are trained. Importing this does not import torch."""

from defenses.recipes.annealing import GammaAnnealing
from defenses.recipes.cheap import FastAdversarialTraining, FreeAdversarialTraining
from defenses.recipes.natural import Natural
from defenses.recipes.pgd import PGDAdversarialTraining
from defenses.recipes.settings import settings
from defenses.recipes.trades import TRADES

__all__ = [
    "TRADES",
    "FastAdversarialTraining",
    "FreeAdversarialTraining",
    "GammaAnnealing",
    "Natural",
    "PGDAdversarialTraining",
    "settings",
]
