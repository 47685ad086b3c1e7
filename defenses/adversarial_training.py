"""Adversarially trained networks: with ReLU, and with k-WTA."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.registry import register_defense
from defenses.kwta import KWTA
from defenses.recipes import PGDAdversarialTraining
from defenses.relu import ReLU

if TYPE_CHECKING:
    from bench.api import Recipe


@register_defense("relu-at")
class ReLUAdversarialTraining(ReLU):
    """A plain network trained on PGD's adversarial examples (Madry et al., ICLR 2018)."""

    summary = "Adversarial training by PGD, ReLU network (Madry et al. 2018)"

    def recipe(self, family: str) -> Recipe:
        """Adversarial training.

        Raises:
            UsageError: there are no settings for this family.
        """
        return PGDAdversarialTraining(family)


@register_defense("kwta-at")
class KWTAAdversarialTraining(KWTA):
    """k-WTA activations trained on PGD's adversarial examples (Xiao et al., ICLR 2020)."""

    summary = "k-Winners-Take-All activations, adversarial training by PGD (Xiao et al. 2020)"
    twin = "relu-at"

    def recipe(self, family: str) -> Recipe:
        """Adversarial training.

        Raises:
            UsageError: there are no settings for this family.
        """
        return PGDAdversarialTraining(family)
