"""How defenses are trained. Importing this does not import torch."""

from bench.defenses.recipes.annealing import GammaAnnealing
from bench.defenses.recipes.cheap import FastAdversarialTraining, FreeAdversarialTraining
from bench.defenses.recipes.natural import Natural
from bench.defenses.recipes.pgd import PGDAdversarialTraining
from bench.defenses.recipes.settings import settings
from bench.defenses.recipes.trades import TRADES

__all__ = [
    "TRADES",
    "FastAdversarialTraining",
    "FreeAdversarialTraining",
    "GammaAnnealing",
    "Natural",
    "PGDAdversarialTraining",
    "settings",
]
