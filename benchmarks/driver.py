"""What the driver costs per task, and so how many workers it can keep busy.

    python benchmarks/driver.py --tasks 10000 --hands 64 --ray 300

A made-up run of one defense: 5,000 images of 3 x 32 x 32, as many epsilons as it takes.
Its tasks go the way of every run (planned, given away, taken back, stored, written), but what a
worker answers is copied from one answer that was computed; the time that takes is left out. The
worst is assumed of what is found: every task breaks all of its examples by less than any before,
so that all its adversarial examples are written.

Then some tasks on real actors of Ray on this machine, stored nowhere: what Ray takes of the
driver's process for each.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from measuring import parser_of, say, surroundings
from torch import nn

from bench import registry
from bench.api import Examples
from bench.matrix.execute import Pool
from bench.matrix.fill import Filler, Silent
from bench.matrix.plan import Setting, plan
from bench.matrix.tasks import tasks_for
from bench.matrix.work import Bench
from bench.record.store import RunStore
from bench.report.writing import table
from bench.run.config import RunConfig
from bench.run.evaluation import contender_of
from bench.run.prepare import prepare
from bench.threat import Epsilon, Norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.matrix.execute import News
    from bench.matrix.tasks import Task
    from bench.matrix.work import TaskResult
    from bench.models.contenders import Contender

ATTACK = "fgsm"


class Simulated:
    """Hands that answer at once, from one answer that was computed.

    Args:
        bench: computes clean predictions, and that answer.
        count: how many there are.
    """

    surroundings = None

    def __init__(self, bench: Bench, count: int) -> None:
        self.bench, self.count = bench, count
        self.answered = 0
        self.seconds = 0.0
        """That answers took, on the clock; they are not the driver's."""
        self.processor = 0.0
        """The same, of this process on the processor."""
        self._busy: deque[Task] = deque()
        self._template: TaskResult | None = None

    def idle(self, wanted: int) -> Sequence[Simulated]:
        """As often as one more can be given something."""
        return [self] * (min(wanted, self.count) - len(self._busy))

    def send(self, task: Task, limit: float | None) -> None:
        """Take it."""
        self._busy.append(task)

    def news(self) -> list[tuple[Task, News]]:
        """The answer to the task that was given first."""
        started, processor = time.perf_counter(), time.process_time()
        task = self._busy.popleft()
        result = self.bench.run(task) if task.is_clean else self._copy(task)
        self.seconds += time.perf_counter() - started
        self.processor += time.process_time() - processor
        return [(task, result)]

    def close(self) -> None:
        """Nothing to end."""

    def _copy(self, task: Task) -> TaskResult:
        """The one answer, as if it were about this shard, and everything it found were smaller."""
        if self._template is None:
            self._template = self.bench.run(task)
        self.answered += 1
        shift = task.shard.start - self._template.task.shard.start
        (outcomes,) = self._template.outcomes
        frame = outcomes.frame.assign(index=outcomes.frame["index"] + shift)
        less = 1 - 1e-6 * self.answered
        found = [
            item._replace(example=item.example + shift, distance=item.distance * less)
            for item in self._template.found
        ]
        again = dataclasses.replace(outcomes, frame=frame)
        return dataclasses.replace(self._template, task=task, outcomes=[again], found=found)


def made_up(n: int, tasks: int, shard: int) -> tuple[Bench, Contender, Setting]:
    """A run with so many tasks, rounded up to whole epsilons: a linear model on noise."""
    random = torch.Generator().manual_seed(0)
    inputs = torch.rand(n, 3, 32, 32, generator=random)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10)).eval()
    with torch.no_grad():
        labels = module(inputs).argmax(1)
    examples = Examples.of(inputs, labels, tuple(map(str, range(10))), "noise")
    contender = contender_of("model", module)
    count = -(-tasks * shard // n)
    setting = Setting(
        norm=Norm.LINF,
        epsilons=tuple(Epsilon.parse(f"{0.2 + 0.001 * i:.3f}") for i in range(count)),
        seed=0,
        n=n,
        shape=examples.shape,
        classes=examples.classes,
        data_digest=examples.digest,
        device_type="cpu",
        shard_size=shard,
    )
    return Bench(examples, {"model": contender}, "cpu", None), contender, setting


class Timed:
    """Stands before a store, and notes what writing takes."""

    def __init__(self, store: RunStore) -> None:
        self.seconds = self.processor = 0.0
        self._store = store
        for owner, name in ((store, "put"), (store.smallest("model"), "add")):
            setattr(owner, name, self._timed(getattr(owner, name)))

    def _timed(self, function: Any) -> Any:
        def timed(*arguments: Any) -> Any:
            started, processor = time.perf_counter(), time.process_time()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - started
                self.processor += time.process_time() - processor

        return timed


def simulate(n: int, tasks: int, shard: int, hands: int) -> list[list[str]]:
    """A whole made-up run; milliseconds a task, of all and of its parts."""
    bench, contender, setting = made_up(n, tasks, shard)
    contender = dataclasses.replace(
        contender, record=contender.record.model_copy(update={"key": "model"})
    )
    simulated = Simulated(bench, hands)
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        timed = Timed(store)
        filler = Filler(setting, setting.epsilons[0], store, Pool(simulated), Silent())
        planned = plan([contender], registry.create_attacks(ATTACK, setting.norm), setting)
        started, processor = time.perf_counter(), time.process_time()
        filler.fill(planned)
        seconds = time.perf_counter() - started - simulated.seconds
        processor = time.process_time() - processor - simulated.processor
    count = simulated.answered
    parts = {
        f"all ({count:,} tasks of {shard} examples, {hands} hands)": (processor, seconds),
        "of it outcomes and adversarial examples, written and synced": (
            timed.processor, timed.seconds
        ),
        "of it planning, giving away, taking back, reading": (
            processor - timed.processor, seconds - timed.seconds
        ),
    }  # fmt: skip
    return [
        [name, *(f"{1000 * value / count:.2f}" for value in values)]
        for name, values in parts.items()
    ]


def on_ray(count: int) -> list[str]:
    """Real actors, whose answers are stored nowhere; milliseconds a task of this process."""
    import ray

    from bench.matrix.cluster import RayHands

    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    prepared = prepare(RunConfig(("relu",), attacks=ATTACK, n=100, workers=0))
    tasks = tasks_for(prepared.cells[:1], prepared.setting, clean={})
    pool = Pool(RayHands(prepared.bench, "ray", 2))
    list(pool.run(tasks[:2], lambda busy: None))  # until workers are there
    many = [tasks[i % len(tasks)] for i in range(count)]
    started, processor = time.perf_counter(), time.process_time()
    list(pool.run([dataclasses.replace(task) for task in many], lambda busy: None))
    spent = time.process_time() - processor, time.perf_counter() - started
    pool.close()
    ray.shutdown()
    return [f"Ray, besides: {count} tasks on 2 actors", *(f"{1000 * s / count:.2f}" for s in spent)]


def main(words: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = parser_of(__doc__)
    parser.add_argument("--n", type=int, default=5_000, help="examples")
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--shard", type=int, default=50, help="examples of a task")
    parser.add_argument("--hands", type=int, default=64)
    parser.add_argument("--ray", type=int, default=0, help="tasks on real actors; 0 for none")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    rows = simulate(arguments.n, arguments.tasks, arguments.shard, arguments.hands)
    if arguments.ray:
        rows.append(on_ray(arguments.ray))
    say(table(["of a task", "processor (ms)", "clock (ms)"], rows))
    say(surroundings("cpu", n=arguments.n, shard=arguments.shard))


if __name__ == "__main__":
    main()
