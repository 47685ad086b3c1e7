"""Networks as functions of their activation, and the base class of defenses that use them.

Importing this does not import torch; building a network does.
"""

from bench.defenses.networks.choice import build_network, default_network
from bench.defenses.networks.defense import NetworkDefense

__all__ = ["NetworkDefense", "build_network", "default_network"]
