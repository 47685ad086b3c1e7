"""How defenses are trained. Importing this does not import torch."""

from defenses.recipes.natural import Natural
from defenses.recipes.pgd import PGDAdversarialTraining

__all__ = ["Natural", "PGDAdversarialTraining"]
