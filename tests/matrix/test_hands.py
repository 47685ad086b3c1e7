"""The driver and its hands: who does a task again, what counts, and which GPU a process sees."""

from __future__ import annotations

import dataclasses
import json
import os
from collections import deque
from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
import torch

from bench.api import Cost
from bench.errors import HandsError, UsageError
from bench.matrix.execute import DEATHS, Died, InProcess, Lost, Pool
from bench.matrix.local import ALLOCATOR, LocalHands
from bench.matrix.processes import COPY
from bench.matrix.tasks import Shard, Task
from bench.matrix.work import TaskResult
from bench.record.schema import Cell
from bench.run import run
from bench.run.config import RunConfig
from bench.run.devices import processes, resolve_devices, surely_cpu
from bench.run.prepare import prepare
from bench.threat import Epsilon, Norm
from tests.pretended import pretended_gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from bench.matrix.execute import News


def task(number: int, attack: str = "some", epsilon: str = "0.1") -> Task:
    """A shard of a cell."""
    return Task(
        cell=Cell(defense="model", attack=attack, epsilon=epsilon),
        shard=Shard(number, 0, 1),
        cells=((f"{attack}-{epsilon}", Epsilon.parse(epsilon)),),
        seed=number,
        norm=Norm.LINF,
        cost=Cost(1),
    )


class Scripted:
    """Hands that say what is written for a task, its next word each time, and then that it is done.

    Two of them; the one that was given a task first speaks first.
    """

    def __init__(self, script: dict[int, list[News]]) -> None:
        self.script = {number: deque(words) for number, words in script.items()}
        self.given: list[int] = []
        self.busy: deque[Task] = deque()

    def idle(self, wanted: int) -> Sequence[Scripted]:
        """As often as it can be given something."""
        return [self] * (min(2, wanted) - len(self.busy))

    def send(self, task: Task, limit: float | None) -> None:
        """Note it."""
        self.given.append(task.shard.number)
        self.busy.append(task)

    def news(self) -> list[tuple[Task, News]]:
        """One word."""
        task = self.busy.popleft()
        words = self.script.get(task.shard.number)
        return [(task, words.popleft() if words else TaskResult(task))]

    surroundings = None

    def close(self) -> None:
        """Nothing to end."""


def done(hands: Scripted, tasks: Sequence[Task], pool: Pool | None = None) -> list[tuple[int, str]]:
    """Number and cause of each result."""
    results = (pool or Pool(hands)).run(tasks, lambda busy: None)
    return [(result.task.shard.number, result.cause) for result in results]


def test_a_lost_worker_counts_for_nobody() -> None:
    """However often its machine goes, a task is done again, and before what nobody has begun."""
    hands = Scripted({0: [Lost("gone")] * (3 * DEATHS)})
    assert done(hands, [task(0), task(1), task(2)]) == [(1, ""), (2, ""), (0, "")]
    assert hands.given.count(0) == 3 * DEATHS + 1
    assert hands.given[:3] == [0, 1, 0]


def test_deaths_count_for_a_defense_under_an_attack() -> None:
    """Two in one shard and one in another: the third fails it, and the pair is not tried again."""
    died = Died("was ended", "")
    hands = Scripted({0: [died, died], 1: [died]})
    pool = Pool(hands)
    tasks = [task(0), task(1, epsilon="0.2"), task(2, "other"), task(3, epsilon="0.3")]
    found = dict(done(hands, tasks, pool))
    assert found.pop(2) == found.pop(3) == ""
    assert set(found.values()) == {"died"}
    assert len(hands.given) == 2 + DEATHS
    assert done(hands, [task(4), task(5, "other")], pool) == [(4, "died"), (5, "")]
    assert len(hands.given) == 2 + DEATHS + 1


def test_what_killed_its_worker_is_tried_again_alone_and_last() -> None:
    """It may have wanted the memory that others had."""
    hands = Scripted({0: [Died("was ended", "")]})
    assert done(hands, [task(number) for number in range(4)])[-1] == (0, "")
    assert hands.given == [0, 1, 2, 3, 0]


def test_a_cell_that_lost_a_shard_is_left() -> None:
    """Its other shards are not done; another cell's are."""
    late = TaskResult(task(0), error="late", cause="timeout")
    hands = Scripted({0: [late]})
    tasks = [task(0), task(1, "other"), task(2), task(3, "other")]
    assert done(hands, tasks) == [(0, "timeout"), (1, ""), (3, "")]


class Bench:
    """Does tasks by a function of their number, in a process that is a copy of this one."""

    def __init__(self, does: Callable[[Bench, int], object]) -> None:
        self.does, self.device = does, ""

    def run(self, task: Task) -> TaskResult:
        """Do it; what came of it is the error."""
        return TaskResult(task, error=str(self.does(self, task.shard.number)))


@pytest.fixture
def made() -> Iterator[Callable[..., Pool]]:
    """Makes pools on devices, and closes them."""
    pools = []

    def make(does: Callable[[Bench, int], object], *devices: str) -> Pool:
        bench: Any = Bench(does)
        pools.append(Pool(LocalHands(bench, devices, COPY)))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


@pytest.mark.parametrize(("seen", "wanted"), [("", {"0", "1"}), ("4, GPU-7", {"4", "GPU-7"})])
def test_every_process_sees_one_gpu_and_calls_it_the_first(
    made: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch, seen: str, wanted: set[str]
) -> None:
    """Of those that this process sees, the one that its number says."""
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)

    def place(bench: Bench, number: int) -> str:
        return f"{bench.device} {os.environ['CUDA_VISIBLE_DEVICES']}"

    pool = made(place, "cuda:0", "cuda:1")
    found = {result.error for result in pool.run(list(map(task, range(12))), lambda busy: None)}
    assert found == {f"cuda:0 {name}" for name in wanted}
    assert os.environ["CUDA_VISIBLE_DEVICES"] == seen


@pytest.mark.parametrize("name", ["", *ALLOCATOR])
@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_memory_of_a_gpu_is_held_in_segments_that_grow(
    device: str, name: str, made: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the user says how, by either name; a process on the CPU has no such memory."""
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    for each in ALLOCATOR:
        monkeypatch.delenv(each, raising=False)
    if name:
        monkeypatch.setenv(name, "max_split_size_mb:64")

    def told(bench: Bench, number: int) -> str:
        return str({each: os.environ[each] for each in ALLOCATOR if each in os.environ})

    (result,) = made(told, device).run([task(0)], lambda busy: None)
    ours = {ALLOCATOR[0]: "expandable_segments:True"} if device != "cpu" else {}
    assert result.error == str({name: "max_split_size_mb:64"} if name else ours)


def test_an_error_of_cuda_takes_down_its_task_and_no_other(
    made: Callable[..., Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything fails in its process afterwards, also what came to an end: it is another one's."""
    broken = False

    def synchronize() -> None:
        if broken:
            raise RuntimeError("CUDA error: device-side assert triggered")

    def does(bench: Bench, number: int) -> str:
        nonlocal broken
        was, broken = broken, broken or number == 1
        return "broken" if was else "well"

    monkeypatch.setattr("torch.cuda.synchronize", synchronize)
    tasks = [task(number, f"attack-{number}") for number in range(4)]
    found = {r.task.shard.number: r for r in made(does, "cuda:0").run(tasks, lambda busy: None)}
    assert {number: result.error for number, result in found.items() if number != 1} == {
        0: "well", 2: "well", 3: "well"
    }  # fmt: skip
    assert found[1].cause == "died"
    assert "the last met RuntimeError: CUDA error: device-side assert" in found[1].error


@pytest.fixture
def two_gpus() -> Iterator[None]:
    """Pretended, of one kind; what they hold is computed with one thread everywhere."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    two = mock.patch.object(torch.cuda, "device_count", return_value=2)
    with pretended_gpu(), two:
        yield
    torch.set_num_threads(threads)


def test_several_devices_are_gpus_of_one_kind(
    two_gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By number or all; what rounds differently is not mixed."""
    assert resolve_devices("cuda:all") == resolve_devices("cuda:0, cuda:1") == ("cuda:0", "cuda:1")
    assert resolve_devices("cuda:1") == ("cuda:1",)
    for text, said in (
        ("cuda:0,cuda:0", "have to be different GPUs"),
        ("cpu,cuda:0", "have to be different GPUs"),
        ("cuda:0,cuda:2", "no device 'cuda:2' here"),
        ("cuda:0,tpu", "unknown device"),
    ):
        with pytest.raises(UsageError, match=said):
            resolve_devices(text)
    monkeypatch.setattr("bench.run.devices.device_name", lambda device: f"model {device[-1]}")
    with pytest.raises(UsageError, match="cuda:0 is a model 0, cuda:1 is a model 1"):
        resolve_devices("cuda:all")


def test_the_cpu_is_known_before_torch_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where no driver of a GPU is, `auto` can be nothing else."""
    monkeypatch.setattr("bench.run.devices.DRIVERS", (str(tmp_path / "driver"),))
    assert list(map(surely_cpu, ("auto", "CPU ", "cuda", "cuda:1"))) == [True, True, False, False]
    (tmp_path / "driver").touch()
    assert list(map(surely_cpu, ("auto", "cpu"))) == [False, True]


def test_a_gpu_has_a_process_unless_told_otherwise(two_gpus: None) -> None:
    """One for each; several devices are nothing for this process."""
    config = RunConfig(("relu",))
    assert processes(config, ("cuda:0",)) == 1
    assert processes(config, ("cuda:0", "cuda:1")) == 2
    assert processes(dataclasses.replace(config, workers=4), ("cuda:0", "cuda:1")) == 4
    with pytest.raises(UsageError, match="--workers 0 is this process"):
        processes(dataclasses.replace(config, workers=0), ("cuda:0", "cuda:1"))


def test_two_gpus_give_what_one_gives(
    two_gpus: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every outcome, to the last digit; on each of them a process."""
    config = RunConfig(
        ("relu",), attacks="fgsm,pgd[steps=3]", n=20, epsilons=("0.1",), examine=False,
        shard_size=5, device="cuda:0", workers=0, out=tmp_path / "one",
    )  # fmt: skip
    prepared = prepare(config)
    both = dataclasses.replace(config, workers=None, out=tmp_path / "two")
    beside = dataclasses.replace(
        prepared, config=both, further_devices=("cuda:1",), own=True  # only a copy pretends as well
    )  # fmt: skip
    assert beside.workers == 2
    one, two = run(prepared), run(beside)
    assert one.outcomes.equals(two.outcomes)
    assert not two.failed


def test_a_run_that_nobody_is_left_for_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was done is kept, the record says so, and the same command goes on."""
    config = RunConfig(
        ("relu",), attacks="fgsm", n=6, epsilons=("0.1",), examine=False, shard_size=3, workers=0,
        device="cpu", twins=False, out=tmp_path,
    )  # fmt: skip
    prepared, original = prepare(config), InProcess.run

    def gone(self: InProcess, tasks: Any, on_busy: Any) -> Iterator[TaskResult]:
        results = original(self, tasks, on_busy)
        yield next(results)
        if not tasks[0].is_clean:
            raise HandsError("no worker")
        yield from results

    monkeypatch.setattr(InProcess, "run", gone)
    with pytest.raises(HandsError):
        run(prepared)
    monkeypatch.setattr(InProcess, "run", original)
    record = prepared.folder / "run.json"
    assert json.loads(record.read_text())["status"] == "interrupted"
    assert len(list(prepared.folder.glob("cells/*/*.parquet"))) == 2 + 1
    assert not run(prepare(config)).failed
    assert json.loads(record.read_text())["status"] == "complete"
