"""Activation functions that take the place of ReLU in a network. Importing this imports torch."""

from defenses.activations.kwta import KWTA

__all__ = ["KWTA"]
