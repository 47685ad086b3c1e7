"""What AutoAttack's standard version spends; without torch, since plans ask for it."""

from __future__ import annotations

from bench.threat import Norm

#: Of Auto-PGD and of FAB, from each start or towards each target.
STEPS = 100
#: Of Square.
QUERIES = 5_000
#: Classes that a targeted attack goes towards, in L1 those of Auto-PGD; and in L1 the restarts of
#: Auto-PGD without a target.
TARGETS, TARGETS_L1, RESTARTS_L1 = 9, 5, 5
#: Radii in which Auto-PGD searches one after another, relative to epsilon, and the share of its
#: steps in each.
ONE_BALL, SHRINKING = ((1.0, 1.0),), ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))


def targets(classes: int, norm: Norm | None = None) -> int:
    """How many classes FAB goes towards, or Auto-PGD in a norm."""
    return min(TARGETS_L1 if norm is Norm.L1 else TARGETS, classes - 1)


def restarts(norm: Norm) -> int:
    """How often Auto-PGD without a target starts."""
    return RESTARTS_L1 if norm is Norm.L1 else 1


def balls(norm: Norm) -> tuple[tuple[float, float], ...]:
    """Where Auto-PGD searches: pairs of a relative radius and a share of the steps."""
    return SHRINKING if norm is Norm.L1 else ONE_BALL
