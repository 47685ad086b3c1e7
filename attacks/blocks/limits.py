"""When the chains of the adaptive attack leave an example."""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    """When an example is done."""

    passes: int
    """Forwards and backwards of it, after which nothing new is begun."""
    agreement: float
    """Two of its points agree when their margins differ by less than this share of the lower."""
    times: int = 1
    """So often points of an example have to agree, and once more where gradients may mislead; other
    chains begin in between."""
    patience: int = 1
    """So many times `ROUNDS` of local search follow a hop, whatever they gain."""

    def unsmoothed(self) -> Limits:
        """Those of a search by a gradient that misleads.

        It misleads candidates less, and points that it led agree that only end in the same place.
        """
        return self._replace(
            passes=self.passes * 5 // 4, agreement=self.agreement / 10, patience=2 * self.patience
        )
