"""What is going on beside a run: data that are decoded, weights that are trained, seeds."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from bench.run.progress import ProgressLine, RunProgress, duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console

    from bench.run.prepare import Prepared
    from bench.train import Progress as Report


class DataProgress(ProgressLine):
    """Shows how many images are decoded, and the time left at the rate so far."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "loading")
        self._began: tuple[float, int] | None = None

    def update(self, done: int, of: int) -> None:
        """So many are decoded of so many; those that were there before are told first."""
        now = time.monotonic()
        since, first = self._began = self._began or (now, done)
        left = (of - done) * (now - since) / max(1, done - first)
        self.say(
            f"decoded {done:,} of {of:,} images, about {left:.0f} s left",
            below="decoding images",
            total=of,
            completed=done,
            figures=f"{done:,}/{of:,} images",
            left=f"ETA {duration(left)}",
        )


class TrainingProgress(ProgressLine):
    """Shows epochs and time left, and below loss and accuracy."""

    def __init__(self, console: Console, name: str) -> None:
        super().__init__(console, name)
        self.name = name
        self._began: tuple[float, float] | None = None

    def update(self, report: Report) -> None:
        """Show where the training stands."""
        now = time.monotonic()
        since, first = self._began = self._began or (now, report.done)
        left = (report.epochs - report.done) * (now - since) / max(1e-9, report.done - first)
        epoch, figures = f"epoch {report.epoch}/{report.epochs}", f"loss {report.loss:.3f}"
        if report.accuracy is not None:
            figures += f"  train accuracy {report.accuracy:.3f}"
        self.say(
            f"{self.name}: {epoch}  {figures}",
            below=f"{self.name}: {figures}",
            total=report.epochs,
            completed=report.done,
            figures=epoch,
            left=f"ETA {duration(left)}" if report.done > first else "ETA –",
        )


class SeedsProgress:
    """For each training seed, the progress of its trainings and of its run."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextlib.contextmanager
    def training(self, name: str, seed: int) -> Iterator[Callable[[Report], None]]:
        """A line for the training."""
        with TrainingProgress(self.console, f"{name}, training seed {seed}") as progress:
            yield progress.update

    @contextlib.contextmanager
    def running(self, prepared: Prepared, seed: int) -> Iterator[RunProgress]:
        """A line for the run."""
        self.console.print(f"training seed {seed}: run {prepared.id}")
        with RunProgress.of(self.console, prepared) as progress:
            yield progress
