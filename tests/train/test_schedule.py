"""Learning rates: over time, and when the epochs are others than planned."""

from dataclasses import replace

import numpy as np
import pytest

from bench.api import Schedule

CYCLIC = Schedule(epochs=30, batch_size=128, learning_rate=0.2, cyclic=True)
FALLING = Schedule(epochs=80, batch_size=256, learning_rate=0.1, milestones=(50, 70), factor=0.2)


@pytest.mark.parametrize("epochs", [1, 5, 30])
def test_cyclic_rate_is_a_triangle(epochs: int) -> None:
    """From 0 over its peak after 2/5 of the epochs to 0, linear between."""
    schedule = replace(CYCLIC, epochs=epochs)
    corners = [0.0, 0.4 * epochs, epochs]
    times = [*corners, 0.2 * epochs, *np.linspace(0, epochs, 37)]

    assert [schedule.rate(done) for done in times] == pytest.approx(
        np.interp(times, corners, [0.0, 0.2, 0.0])
    )


@pytest.mark.parametrize(
    ("done", "rate"),
    [(0, 0.1), (49.99, 0.1), (50, 0.02), (69.5, 0.02), (70, 0.004), (79.99, 0.004)],
)
def test_rate_falls_at_each_milestone_and_stays_within_an_epoch(done: float, rate: float) -> None:
    """By the factor, from the first batch of the epoch on."""
    assert FALLING.rate(done) == pytest.approx(rate)


def test_other_epochs_keep_the_shape() -> None:
    """The rate at each quarter of the training is that of the plan."""
    for schedule in (FALLING, CYCLIC):
        for epochs in (8, 160):
            other = schedule.with_epochs(epochs)

            assert replace(other, epochs=schedule.epochs, milestones=()) == replace(
                schedule, milestones=()
            )
            for part in (0.0, 0.25, 0.5, 0.75, 0.9):
                assert other.rate(part * epochs) == pytest.approx(
                    schedule.rate(part * schedule.epochs)
                )
