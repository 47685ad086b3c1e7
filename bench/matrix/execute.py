"""Doing tasks: in this process, or by hands elsewhere, which one driver keeps busy.

Outcomes do not depend on which, because everything random about a task is fixed by its plan. A task
whose worker died is done again: what killed it may have come from outside. After the third worker
that a defense and an attack took down together, their tasks have failed, and the others go on. A
worker that was lost with its machine counts for nobody.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

from bench.matrix.patience import Patience
from bench.matrix.processes import hold_memory
from bench.matrix.work import TaskResult
from bench.record.provenance import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.matrix.tasks import Task
    from bench.matrix.work import Bench
    from bench.record.outcomes import Totals

#: How many workers a defense and an attack may take down together.
DEATHS = 3


class Died(NamedTuple):
    """A worker ended in its task."""

    how: str
    """In words: `was ended by SIGKILL`."""
    said: str
    """The last that it wrote."""


class Lost(NamedTuple):
    """A worker is gone, or out of reach, for a reason that is not its task's."""

    why: str


#: What comes of a task that was given away.
News = TaskResult | Died | Lost


class Hand(Protocol):
    """Does one task at a time, wherever it is."""

    def send(self, task: Task, limit: float | None) -> None:
        """Have it do a task, which may take so many seconds; None for no end."""


class Hands(Protocol):
    """Workers of one kind: how many there are, and what they say."""

    def idle(self, wanted: int) -> Sequence[Hand]:
        """Those that have nothing to do, of at most so many as there is work for.

        What there could be and is not yet is started, and is among them once it is ready.
        """

    def news(self) -> list[tuple[Task, News]]:
        """What came of tasks, each as it was sent; waits about a second for the first."""

    @property
    def surroundings(self) -> Surroundings | None:
        """In which they compute; None where none has begun."""

    def close(self) -> None:
        """End all at once, whatever they are doing."""


class InProcess:
    """Does tasks here, one after the other: in a notebook, and in tests.

    A guest that ends the process, or does not end, cannot be helped here.

    `on_busy` is told which tasks are being worked on, whenever that changes.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        hold_memory()  # as in workers: batches are of a size that takes it

    def run(
        self, tasks: Sequence[Task], on_busy: Callable[[list[Task]], None]
    ) -> Iterator[TaskResult]:
        """Results in the order of the tasks."""
        for task in tasks:
            on_busy([task])
            yield self.bench.run(task)

    def learn(self, defense: str, clean: Totals) -> None:
        """Nothing is ended here, however long it takes."""

    @property
    def surroundings(self) -> Surroundings:
        """In which this process computes."""
        return Surroundings.of(self.bench.device)

    def close(self) -> None:
        """Nothing to let go of."""


class Pool:
    """Has hands do tasks: the driver, which alone keeps what comes of them.

    Args:
        hands: who does them.
        patience: how long a task may take.
    """

    def __init__(self, hands: Hands, patience: Patience | None = None) -> None:
        self.hands = hands
        self.patience = patience or Patience(None)
        self._deaths: Counter[tuple[str, str]] = Counter()
        self._last: dict[tuple[str, str], Died] = {}
        """Of those that are not tried any more, the death that decided it."""

    def run(
        self, tasks: Sequence[Task], on_busy: Callable[[list[Task]], None]
    ) -> Iterator[TaskResult]:
        """Results as they come.

        A task that was the last thing in its worker comes again when all others are done, and by
        itself: what had not enough memory beside them may have it then. Once a cell has lost a
        shard for good, its others are not done.
        """
        queue = deque(tasks)
        suspects: deque[Task] = deque()
        busy: list[Task] = []
        yield from self._give_up(queue)
        while queue or suspects or busy:
            self._assign(queue, suspects, busy)
            on_busy(list(busy))
            for task, news in self.hands.news():
                busy[:] = [each for each in busy if each is not task]
                if isinstance(news, Lost):
                    queue.appendleft(task)
                elif isinstance(news, Died):
                    yield from self._after_death(task, news, queue, suspects)
                else:
                    if news.cause == "timeout":
                        _drop(task, queue, suspects)
                    yield news

    def learn(self, defense: str, clean: Totals) -> None:
        """What the clean predictions of a defense took."""
        self.patience.learn(defense, clean)

    @property
    def surroundings(self) -> Surroundings | None:
        """In which its hands compute; None where none has begun."""
        return self.hands.surroundings

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""
        self.hands.close()

    def _assign(self, queue: deque[Task], suspects: deque[Task], busy: list[Task]) -> None:
        """Give every idle hand something to do."""
        for hand in self.hands.idle(max(1, len(queue) + len(busy))):
            if queue:
                task = queue.popleft()
            elif suspects and not busy:
                task = suspects.popleft()
            else:
                return
            busy.append(task)
            hand.send(task, self.patience.limit(task))

    def _after_death(
        self, task: Task, death: Died, queue: deque[Task], suspects: deque[Task]
    ) -> Iterator[TaskResult]:
        """Have a task done again, or, after one death too many, no task of its pair any more."""
        pair = _pair(task)
        self._deaths[pair] += 1
        if self._deaths[pair] < DEATHS:
            suspects.append(task)
            return
        self._last[pair] = death
        error = f"it took down {DEATHS} processes, one after the other: the last {death.how}"
        yield TaskResult(task, error=error, cause="died", detail=death.said)
        _drop(task, queue, suspects)
        yield from self._give_up(queue)
        yield from self._give_up(suspects)

    def _give_up(self, queue: deque[Task]) -> Iterator[TaskResult]:
        """Leave out what nobody tries any more, which fails."""
        tasks = list(queue)
        queue.clear()
        for task in tasks:
            death = self._last.get(_pair(task))
            if death is None:
                queue.append(task)
                continue
            error = (
                f"not tried: with this defense the attack took down {DEATHS} processes before, the "
                f"last {death.how}"
            )
            yield TaskResult(task, error=error, cause="died")


def _pair(task: Task) -> tuple[str, str]:
    return task.cell.defense, task.cell.attack


def _drop(task: Task, *queues: deque[Task]) -> None:
    """Leave out what fills the same cells."""
    lost = set(task.cells)
    for queue in queues:
        kept = [each for each in queue if lost.isdisjoint(each.cells)]
        queue.clear()
        queue.extend(kept)
