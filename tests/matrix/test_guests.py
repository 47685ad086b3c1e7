"""What a guest does to its process fails its own cells, with the cause; the others go on."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench.api import Cost
from bench.errors import ModelError, PluginNotice, UnknownNameError, UsageError
from bench.matrix.apart import apart
from bench.matrix.patience import Patience
from bench.matrix.processes import COPY, SERVER
from bench.matrix.tasks import Shard, Task
from bench.record.outcomes import Totals
from bench.record.schema import Cell
from bench.threat import Epsilon, Norm
from tests.matrix.guests import CHANGES, ENDS, LEFT, RAISES, Mortal
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import nn

EPSILON = "0.02"
#: The closed form of what `Best` leaves of `Sum`.
ROBUST = float((linf_thresholds(linear_examples()) > 0.02).double().mean())


def evaluated(attacks: str, model: nn.Module | None = None, **how: Any) -> Any:
    """A model on its examples, in two shards."""
    examples = linear_examples()
    return attack_only(
        model or Sum(), examples.inputs, examples.labels,
        **{"epsilons": [EPSILON], "attacks": attacks, "shard_size": 10, **how},
    )  # fmt: skip


def cells(result: Any) -> dict[str, Any]:
    """What stands in the table, by attack."""
    attacks = result.summary["defenses"]["model"]["attacks"]
    return {name: cells[EPSILON] for name, cells in attacks.items()}


@pytest.mark.parametrize(
    ("does", "workers"),
    [*((does, 1) for does in {**RAISES, **ENDS}), *((does, 0) for does in RAISES)],
)
def test_what_ends_a_task_fails_its_cell_and_no_other(does: str, workers: int) -> None:
    """With the cause, and a line in the table; what the next attack finds is the closed form."""
    _, cause = {**RAISES, **ENDS}[does]
    timeout = 0.5 if does == "hang" else None
    result = evaluated(f"test-guest[does={does}],test-best", workers=workers, timeout=timeout)
    found = cells(result)
    guest = found[f"test-guest[does={does}]"]
    assert (guest["status"], guest["cause"]) == ("failed", cause)
    assert guest["reason"]
    assert result.failed
    assert f"@ {EPSILON} failed: " in result.to_markdown()
    assert found["test-best"]["robust_accuracy"] == ROBUST


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("does", CHANGES)
def test_what_can_be_put_back_is(
    does: str, workers: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """The cell has its figure, standard output stays empty, and this process is as it was."""
    before = Path.cwd(), dict(os.environ), signal.getsignal(signal.SIGINT)
    found = cells(evaluated(f"test-guest[does={does}],test-best", workers=workers))
    assert [cell["robust_accuracy"] for cell in found.values()] == [ROBUST, ROBUST]
    assert (Path.cwd(), dict(os.environ), signal.getsignal(signal.SIGINT)) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    print("still here")  # noqa: T201
    assert capfd.readouterr().out == "still here\n"
    if workers:
        assert not list(running(LEFT))
    for left in running(LEFT):
        os.kill(left, signal.SIGKILL)


def test_a_worker_is_bounded() -> None:
    """Memory, images of crashes, threads; where memory ends it goes first; its group is its own."""
    (cell,) = cells(evaluated("test-guest[does=limits]", workers=1)).values()
    assert (cell["status"], cell["reason"]) == ("ok", "")


def running(command: tuple[str, ...]) -> Iterator[int]:
    """The processes of a command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        if words == list(command):
            yield int(path.parent.name)


def outcomes(result: Any) -> str:
    """All of the outcomes of a run."""
    return str(result.outcomes_full.to_csv())


@pytest.mark.parametrize(("deaths", "shards"), [(1, 2), (2, 1)])
def test_a_task_whose_worker_was_killed_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deaths: int, shards: int
) -> None:
    """Two deaths, in one shard or in two: the run ends where an undisturbed one does."""
    how: dict[str, Any] = {"shard_size": 20 // shards}
    undisturbed = evaluated("test-mortal,test-best", workers=0, **how)
    monkeypatch.setattr(Mortal, "deaths", deaths)
    monkeypatch.setattr(Mortal, "folder", tmp_path, raising=False)
    disturbed = evaluated("test-mortal,test-best", workers=2, **how)
    assert len(list(tmp_path.iterdir())) == shards * deaths, "each shard was to be killed"
    assert not disturbed.failed
    assert outcomes(disturbed) == outcomes(undisturbed)


def test_a_task_that_kills_each_worker_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three in both of its shards; at its other epsilon the attack is not tried any more."""
    monkeypatch.setattr(Mortal, "deaths", 9)
    monkeypatch.setattr(Mortal, "folder", tmp_path, raising=False)
    result = evaluated("test-mortal,test-best", workers=1, epsilons=[EPSILON, "0.03"])
    attacks = result.summary["defenses"]["model"]["attacks"]
    for cell in attacks["test-mortal"].values():
        assert cell["cause"] == "died"
        assert "took down 3 processes" in cell["reason"]
        assert "memory ran out" in cell["reason"]
    assert [cell["status"] for cell in attacks["test-best"].values()] == ["ok", "ok"]
    assert len(list(tmp_path.iterdir())) == 3


def test_the_stack_of_what_hangs_is_kept(tmp_path: Path) -> None:
    """In the file of the error: where the guest stood when its time was over."""
    evaluated("test-guest[does=hang]", workers=1, timeout=3, out=tmp_path)
    (error,) = tmp_path.glob("*/errors/*.txt")
    assert "_stop_thinking" in error.read_text()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_programs_own_model_in_workers_gives_the_same(workers: int) -> None:
    """A class that no other program could import, with the same outcomes as in this process."""

    class Local(Sum):
        """Known here alone."""

    here, there = (
        evaluated("test-random,test-best,test-minimum", Local(), workers=count)
        for count in (0, workers)
    )
    assert outcomes(here) == outcomes(there)
    assert not here.summary["provenance"]["isolated"]
    assert there.summary["provenance"]["isolated"]


class Deadly(Sum):
    """Does something in every forward."""

    def __init__(self, does: str) -> None:
        super().__init__()
        self.does = does

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Do it."""
        {**RAISES, **ENDS}[self.does][0]()
        return super().forward(x)


@pytest.mark.parametrize(
    ("does", "workers", "said"),
    [
        ("exit", 0, "SystemExit"),
        ("own", 0, "OwnError: no message"),
        ("exit", 1, "SystemExit"),
        ("leave", 1, "its process ended with exit code 0"),
        ("segfault", 1, "its process was ended by SIGSEGV"),
        ("hang", 1, "did not end within 0.4 s"),
    ],
)
def test_a_model_that_cannot_be_asked_once_is_refused(does: str, workers: int, said: str) -> None:
    """In one line, by the first question of all."""
    timeout = 0.4 if does == "hang" else None
    with pytest.raises(ModelError, match=said) as refused:
        evaluated("test-best", Deadly(does), workers=workers, timeout=timeout)
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("the model: ")


class Late(Deadly):
    """Answers the first question, whichever process asks it, and does it at every later one."""

    def __init__(self, does: str, mark: Path) -> None:
        super().__init__(does)
        self.mark = mark

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Answer where no mark of a question is there yet."""
        if self.mark.exists():
            return super().forward(x)
        self.mark.touch()
        return Sum.forward(self, x)


@pytest.mark.parametrize(
    ("does", "cause", "said"),
    [("leave", "died", "exit code 0"), ("memory", "out-of-memory", "out of memory")],
)
def test_without_clean_predictions_nothing_is_attacked(
    tmp_path: Path, does: str, cause: str, said: str
) -> None:
    """All cells fail, and say of what; the run ends as others do."""
    result = evaluated("test-best", Late(does, tmp_path / "mark"), workers=1)
    failed = {(f["attack"], f["cause"]) for f in result.summary["defenses"]["model"]["failed"]}
    assert failed == {("clean", cause), ("test-best", "no-clean")}
    assert said in cells(result)["test-best"]["reason"]


def test_ctrl_c_in_this_process_is_the_users(tmp_path: Path) -> None:
    """It ends the run, which is marked as interrupted, and keeps what was stored."""
    with pytest.raises(KeyboardInterrupt):
        evaluated("test-best,test-guest[does=interrupt]", out=tmp_path)
    (record,) = tmp_path.glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "interrupted"
    assert list(tmp_path.rglob("*.parquet"))


@pytest.fixture
def heeding() -> Iterator[None]:
    """This process heeds Ctrl-C: one that a shell has put into the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding")
def test_ctrl_c_ends_workers_whatever_they_do(tmp_path: Path) -> None:
    """Two that never come back: none is left, and what was stored is kept."""
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        evaluated("test-best,test-guest[does=hang]", workers=2, out=tmp_path)
    timer.join()
    assert not multiprocessing.active_children()
    (record,) = tmp_path.glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "interrupted"
    resumed = cells(evaluated("test-best", out=tmp_path))
    assert resumed["test-best"]["robust_accuracy"] == ROBUST


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"workers": -1}, "workers has to be a whole number from 0 up"),
        ({"timeout": -1.0, "workers": 1}, "^timeout has to be seconds from 0 up"),
        ({"timeout": float("nan"), "workers": 1}, "^timeout has to be seconds from 0 up"),
        ({"timeout": 5.0}, "--timeout 5 needs worker processes"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(how: dict[str, Any], said: str) -> None:
    """A timeout needs something that can be ended."""
    with pytest.raises(UsageError, match=said):
        evaluated("test-best", **how)


def task(seconds: float, forwards: int) -> tuple[Task, Totals]:
    """A task of 1,000 passes for each of 5 active examples of 50, and what the clean one took."""
    cell = Cell(defense="d", attack="a", epsilon="0.1")
    return Task(
        cell=cell, shard=Shard(0, 0, 50), cells=(("key", Epsilon.parse("0.1")),), seed=0,
        norm=Norm.LINF, cost=Cost(4995, 5), active=(0, 1, 2, 3, 4),
    ), Totals(forwards=forwards, seconds=seconds)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, 20 * (1000 + 2) * 0.5),  # 50 forwards took half a second: so does each pass
        (0.01, 600),  # the least
    ],
)
def test_a_task_may_take_20_times_what_its_passes_should(seconds: float, expected: float) -> None:
    """By what a forward of the whole shard took; an hour where that is not known."""
    each, clean = task(seconds, forwards=50)
    patience = Patience(None)
    assert patience.limit(each) == 3600
    patience.learn("d", clean)
    assert patience.limit(each) == pytest.approx(expected)


@pytest.mark.parametrize(("given", "limit"), [(7.0, 7.0), (0, None)])
def test_a_timeout_that_is_given_holds_for_every_task(given: float, limit: float | None) -> None:
    """Zero is none."""
    each, clean = task(1.0, forwards=50)
    patience = Patience(given)
    patience.learn("d", clean)
    assert patience.limit(each) == limit == patience.first


@pytest.mark.parametrize("given", ["5", -1, float("nan"), float("inf"), 1j])
def test_a_timeout_that_is_no_seconds_is_refused(given: Any) -> None:
    """Text too, which compares with no number."""
    with pytest.raises(UsageError, match="--timeout has to be seconds from 0 up; 0 for no end"):
        Patience(given)


def answer(say: Callable[[str], None], whom: str) -> str:
    """Warn, and give something back, or not."""
    say(whom)
    warnings.warn("left out", PluginNotice, stacklevel=1)
    if whom == "unknown":
        raise UnknownNameError("defense", "rleu", ["relu"])
    if whom == "strange":
        raise ValueError("x")
    return whom


@pytest.mark.parametrize("start", [COPY, pytest.param(SERVER, marks=pytest.mark.whole)])
def test_what_is_asked_apart_comes_back(start: str) -> None:
    """The answer with its warnings, and errors by their class and words."""
    with pytest.warns(PluginNotice, match="left out"):
        assert apart(answer, "me", start=start) == "me"
    with pytest.warns(PluginNotice), pytest.raises(UnknownNameError, match="did you mean 'relu'"):
        apart(answer, "unknown", start=start)
    told = r"^strange: ValueError: x \(test_guests.py, line \d+\)$"
    with pytest.warns(PluginNotice), pytest.raises(ModelError, match=told):
        apart(answer, "strange", start=start)
