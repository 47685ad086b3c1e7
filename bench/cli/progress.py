"""What is going on: a live line on a terminal, a plain one now and then elsewhere."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.progress import ProgressColumn

    from bench.matrix.tasks import Task
    from bench.matrix.work import TaskResult
    from bench.run.prepare import Prepared
    from bench.train import Progress as Report

#: Seconds between two lines where there is no terminal.
QUIET_INTERVAL = 10.0


def _plain(template: str) -> TextColumn:
    """A column in which names in brackets are names."""
    return TextColumn(template, markup=False)


class _Line:
    """A bar on a terminal; elsewhere a line of text now and then."""

    def __init__(self, console: Console, description: str, *columns: ProgressColumn) -> None:
        self.console = console
        self._last_line = time.monotonic()
        self._progress = Progress(
            _plain("{task.description}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            *columns,
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task(printable(description), total=None, figures="", left="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, plain: str, **shown: Any) -> None:
        """Show where things stand.

        Args:
            plain: what a line of text says.
            shown: what changes of the bar.
        """
        now = time.monotonic()
        if "description" in shown:
            shown["description"] = printable(shown["description"])
        self._progress.update(self._bar, **shown)
        if not self.console.is_terminal and now - self._last_line >= QUIET_INTERVAL:
            self._last_line = now
            self.console.print(printable(plain), markup=False)


class DataProgress(_Line):
    """Shows how many images are decoded, and the time left at the rate so far."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "loading", TimeElapsedColumn(), TimeRemainingColumn())
        self._began: tuple[float, int] | None = None

    def update(self, done: int, of: int) -> None:
        """So many are decoded of so many; those that were there before are told first."""
        now = time.monotonic()
        since, first = self._began = self._began or (now, done)
        left = (of - done) * (now - since) / max(1, done - first)
        self.say(
            f"decoded {done:,} of {of:,} images, about {left:.0f} s left",
            description="decoding images",
            total=of,
            completed=done,
        )


class RunProgress(_Line):
    """Shows current cells, cells done, time left, and the robust accuracy so far.

    The time left is the share of the planned passes not yet done, at the rate so far; attacks that
    break their examples early need fewer passes than planned, so that it tends to fall faster.
    """

    def __init__(self, console: Console, headline: str = "") -> None:
        figures, left = _plain("{task.fields[figures]}"), _plain("{task.fields[left]}")
        super().__init__(console, "starting", figures, TimeElapsedColumn(), left)
        self.headline = headline
        self._cells_done = 0
        self._open: dict[str, int] = {}
        self._planned = 0.0
        self._done = 0.0
        self._robust: dict[str, float] = {}
        self._busy: Sequence[Task] = ()
        self._started = time.monotonic()

    def begin(self, tasks: Sequence[Task]) -> None:
        """Tasks were planned."""
        for task in tasks:
            self._planned += _weight(task)
            for key, _ in task.cells:
                self._open[key] = self._open.get(key, 0) + 1
        self._show()

    def busy(self, tasks: Sequence[Task]) -> None:
        """These tasks are being worked on."""
        self._busy = tasks
        self._show()

    def done(self, result: TaskResult, robust: float | None) -> None:
        """A task ended."""
        self._done += _weight(result.task)
        if robust is not None:
            self._robust[result.task.cell.defense] = robust
        for key, _ in result.task.cells:
            self._open[key] -= 1
            self._cells_done += self._open[key] == 0
        if result.error:
            self.console.print(f"failed: {result.task.label}: {result.error}", markup=False)
        self._show()

    def _show(self) -> None:
        now = " | ".join(sorted({task.label for task in self._busy})) or "starting"
        robust = ", ".join(f"{name} {100 * r:.0f} %" for name, r in sorted(self._robust.items()))
        description = now + (f" · robust so far @ {self.headline}: {robust}" if robust else "")
        cells, left = f"{self._cells_done}/{len(self._open)} cells", self._left()
        self.say(
            f"{cells}, {left}: {description}",
            description=description,
            total=self._planned or None,
            completed=self._done,
            figures=cells,
            left=left,
        )

    def _left(self) -> str:
        if not self._done:
            return "ETA –"
        spent = time.monotonic() - self._started
        seconds = spent * (self._planned - self._done) / self._done
        return f"ETA {int(seconds // 60)}:{int(seconds % 60):02d}"


def _weight(task: Task) -> float:
    """A backward costs about two forwards; every task costs a little."""
    return task.cost.forwards + 2 * task.cost.backwards + 100.0


class TrainingProgress(_Line):
    """Shows loss, accuracy and time left."""

    def __init__(self, console: Console, name: str) -> None:
        figures, left = _plain("{task.fields[figures]}"), _plain("left")
        super().__init__(console, name, figures, TimeElapsedColumn(), left, TimeRemainingColumn())
        self.name = name

    def update(self, report: Report) -> None:
        """Show where the training stands."""
        figures = f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}"
        if report.accuracy is not None:
            figures += f"  train accuracy {report.accuracy:.3f}"
        self.say(
            f"{self.name}: {figures}", total=report.epochs, completed=report.done, figures=figures
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
        with RunProgress(self.console, prepared.headline.text) as progress:
            yield progress
