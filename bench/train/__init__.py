"""Training: a loop that runs a defense's recipe. Importing this imports torch."""

from bench.train.fit import Progress
from bench.train.loop import Trained, train

__all__ = ["Progress", "Trained", "train"]
