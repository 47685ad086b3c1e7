"""How a run goes, shown: live in a terminal or a notebook's cell, a plain line elsewhere."""

from __future__ import annotations

import html
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Self

from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from bench.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console, RenderableType

    from bench.api import Cost
    from bench.matrix.tasks import Task
    from bench.matrix.work import TaskResult
    from bench.run.prepare import Prepared

#: Seconds between two lines where nothing is live, and between two pictures of a notebook's cell.
QUIET_INTERVAL, CELL_INTERVAL = 10.0, 0.5
#: The part of the plan from which on its rate is told: before it nearly all is starting.
TOLD = 0.01
#: What every task costs, in forwards.
EACH = 100.0


class _Bar(Progress):
    """A bar, and a line below it that gives way where the terminal is narrow."""

    below = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, and the line where there is something to say."""
        yield self.make_tasks_table(self.tasks)
        if self.below:
            yield Text(self.below, no_wrap=True, overflow="ellipsis")


class _Cell:
    """A live cell of Jupyter; it needs no widgets."""

    def __init__(self) -> None:
        from IPython.display import display

        self._handle = display(self._of(""), display_id=True)
        self._shown = 0.0

    @staticmethod
    def _of(text: str) -> Any:
        from IPython.display import HTML

        return HTML(text)

    def show(self, share: float | None, first: str, below: str) -> None:
        """A bar with a line beside it and one below."""
        now = time.monotonic()
        if now - self._shown < CELL_INTERVAL:
            return
        self._shown = now
        value = "" if share is None else f' value="{share:.4f}"'
        self._handle.update(
            self._of(
                f'<progress{value} aria-label="progress"></progress> '
                f"{html.escape(first)}<br><small>{html.escape(below)}</small>"
            )
        )

    def close(self) -> None:
        """Leave nothing behind."""
        self._handle.update(self._of(""))


class ProgressLine:
    """A bar with a count and the time left, and a line below it that says what is going on.

    Args:
        console: where it is shown; elsewhere than in a terminal or a notebook as a line of text
            now and then.
        description: what is going on at first.
        ticking: whether a thread of its own keeps the clock going; not where processes are forked.
    """

    def __init__(self, console: Console, description: str, *, ticking: bool = True) -> None:
        self.console = console
        self._last_line = time.monotonic()
        self._progress = _Bar(
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            console=console,
            transient=True,
            auto_refresh=ticking,
            disable=not console.is_terminal or console.is_jupyter,
        )
        self._progress.below = _one_line(description)
        self._bar = self._progress.add_task("", total=None, figures="", left="")
        self._cell = _Cell() if console.is_jupyter else None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        if self._cell:
            self._cell.close()

    def say(self, plain: str, *, below: str = "", **shown: Any) -> None:
        """Show where things stand.

        Args:
            plain: what a line of text says.
            below: what is going on.
            shown: what changes of the bar: `total`, `completed`, `figures`, `left`.
        """
        self._progress.below = _one_line(below) or self._progress.below
        self._progress.update(self._bar, **shown)
        if self._cell:
            of, done = shown.get("total"), shown.get("completed", 0)
            first = f"{shown.get('figures', '')} {shown.get('left', '')}".strip()
            self._cell.show(done / of if of else None, first, self._progress.below)
        elif self.console.is_terminal:
            if not self._progress.live.auto_refresh:
                self._progress.refresh()
        elif time.monotonic() - self._last_line >= QUIET_INTERVAL:
            self._last_line = time.monotonic()
            self.console.print(printable(plain), markup=False)


class RunProgress(ProgressLine):
    """Shows cells done and time left, and below which attack leads and what is being done.

    The time left is the share of the planned passes not yet done, at the rate so far; attacks that
    break their examples early need fewer passes than planned, so that it tends to fall faster. What
    an examination will ask for is not known before: `≥` says that it is to come.

    Args:
        console: where it is shown.
        headline: the epsilon at which an attack leads.
        examined: whether an examination follows.
        ticking: whether what is live is drawn again by itself.
    """

    def __init__(
        self,
        console: Console,
        headline: str = "",
        *,
        examined: bool = False,
        ticking: bool = True,
    ) -> None:
        super().__init__(console, "starting", ticking=ticking)
        self.headline = headline
        self._least = "≥ " if examined else ""
        self._cells_done = 0
        self._open: dict[str, int] = {}
        self._planned = 0.0
        self._ahead = 0.0
        """Of phases that have not begun."""
        self._done = 0.0
        self._robust: dict[str, float] = {}
        self._broke: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self._busy: Sequence[Task] = ()
        self._started = time.monotonic()

    @classmethod
    def of(cls, console: Console, prepared: Prepared, *, ticking: bool = True) -> Self:
        """Shows how a run goes."""
        examined = bool(prepared.examined)
        return cls(console, prepared.headline.text, examined=examined, ticking=ticking)

    def begin(self, tasks: Sequence[Task], ahead: Cost) -> None:
        """A phase of tasks was planned; what waits for it takes so much, at most."""
        self._ahead = _weight(ahead)
        for task in tasks:
            self._planned += _weight(task.cost) + EACH
            for key, _ in task.cells:
                self._open[key] = self._open.get(key, 0) + 1
        self._show()

    def busy(self, tasks: Sequence[Task]) -> None:
        """These tasks are being worked on."""
        self._busy = tasks
        self._show()

    def done(self, result: TaskResult, robust: float | None) -> None:
        """A task ended."""
        cell = result.task.cell
        self._done += _weight(result.task.cost) + EACH
        if robust is not None:
            self._robust[cell.defense] = robust
        for key, _ in result.task.cells:
            self._open[key] -= 1
            self._cells_done += self._open[key] == 0
        for (_, epsilon), outcomes in zip(result.task.cells, result.outcomes, strict=False):
            if epsilon.text == self.headline and not result.task.is_clean:
                broken = outcomes.frame["attacked"] & outcomes.frame["broken"]
                self._broke[cell.defense][cell.label] += int(broken.sum())
        if result.error:
            self.console.print(f"failed: {result.task.label}: {result.error}", markup=False)
        self._show()

    def _show(self) -> None:
        now = " | ".join(sorted({task.label for task in self._busy})) or "starting"
        robust = "; ".join(self._standing(name) for name in sorted(self._robust))
        below = f"@ {self.headline}: {robust} · now {now}" if robust else now
        cells, left = f"{self._cells_done}/{len(self._open)} cells", self._left()
        self.say(
            f"{cells}, {left}: {below}",
            below=below,
            total=self._planned + self._ahead or None,
            completed=self._done,
            figures=cells,
            left=left,
        )

    def _standing(self, name: str) -> str:
        """What is left of a defense, and the attack that broke most of it by itself."""
        said = f"{name} {100 * self._robust[name]:.0f} % robust so far"
        broke = self._broke[name]
        leader = max(sorted(broke), key=lambda attack: broke[attack], default="")
        return f"{said}, {leader} leads (broke {broke[leader]})" if any(broke.values()) else said

    def _left(self) -> str:
        whole = self._planned + self._ahead
        if not self._done or self._done < TOLD * whole:
            return "ETA –"
        spent = time.monotonic() - self._started
        return f"ETA {self._least}{duration(spent * (whole - self._done) / self._done)}"


def duration(seconds: float) -> str:
    """`1:05`, or with hours `2:01:05`."""
    minutes, rest = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _one_line(text: str) -> str:
    return " ".join(printable(text).split())


def _weight(cost: Cost) -> float:
    """A backward costs about two forwards."""
    return cost.forwards + 2 * cost.backwards
