"""A run on a cluster of three nodes on this machine: whatever goes, what it says is the same."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'winnow-bench[ray]'")

from ray.cluster_utils import Cluster  # noqa: E402 - only where there is Ray

#: Each node is one worker.
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
#: Plugins of the working directory, which no node has before they are sent.
PLUGINS = """
import os, signal, time
import torch
from bench.api import Attack, Cost, Proposal
from bench.registry import register_attack

class Noise(Attack):
    summary, kind, approach = "Noise", "fixed", "noise"

    def cost(self, **_):
        return Cost(0)

    def run(self, problem):
        noise = torch.rand_like(problem.inputs) * 2 - 1
        return Proposal((problem.inputs + problem.epsilon * noise.sign()).clamp(0, 1))

@register_attack("slow")
class Slow(Noise):
    def run(self, problem):
        while os.path.exists(CLOSED):
            open(f"{CLOSED}-{os.getpid()}", "w").close()
            time.sleep(0.05)
        return super().run(problem)

@register_attack("poison")
class Poison(Noise):
    def run(self, problem):
        os.kill(os.getpid(), signal.SIGKILL)
"""
COMMAND = (
    "run", "--defense", "relu", "--n", "12", "--shard-size", "2", "--eps", "0.1", "--no-examine",
    "--no-twins",
)  # fmt: skip
#: What differs between two runs of the same.
BESIDE = ("seconds", "command", "isolated")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes; what one test takes away, it puts back."""
    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    for _ in range(2):
        made.add_node(**NODE)
    yield made
    made.shutdown()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory with plugins of its own."""
    return with_plugins(tmp_path)


def with_plugins(folder: Path) -> Path:
    """A folder to which these were written."""
    (folder / "attacks").mkdir()
    closed = f"CLOSED = {str(folder / 'closed')!r}\n"
    (folder / "attacks" / "mine.py").write_text(closed + PLUGINS)
    return folder


@pytest.fixture
def on_cluster(cluster: Cluster, folder: Path) -> dict[str, str]:
    """The environment of a command that finds the cluster, whose nodes have nothing yet."""
    own = {"RAY_ADDRESS": cluster.address, "WINNOW_CACHE": str(folder / "cache")}
    return {**os.environ, **own}


def started(folder: Path, env: dict[str, str] | None, attacks: str, *more: str) -> commands.Running:
    """A run that was begun; on the cluster where its environment says so."""
    place = ("--executor", "ray") if env else ()
    out = folder / ("there" if env else "here")
    what = ("--attacks", attacks, "--out", out)
    return commands.start(*COMMAND, *what, *place, *more, cwd=folder, env=env)


def summary(out: Path) -> str:
    """The text of `summary.json`, but for times."""

    def kept(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: kept(each) for key, each in value.items() if key not in BESIDE}
        return list(map(kept, value)) if isinstance(value, list) else value

    (path,) = out.glob("*/summary.json")
    return json.dumps(kept(json.loads(path.read_text())), indent=2)


def eventually(happens: Callable[[], Any]) -> Any:
    """What it gives, once that is something."""
    end = time.monotonic() + commands.PATIENCE / 2
    while not (found := happens()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def nodes_of(cluster: Cluster) -> dict[int, Any]:
    """The nodes of this cluster, by the process that starts their actors."""
    return {node.all_processes["raylet"][0].process.pid: node for node in cluster.list_all_nodes()}


def parent(pid: int) -> int:
    """The process that started one; 0 where it has gone or waits to be buried."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if stat[0] == "Z" else int(stat[1])


def keepers(cluster: Cluster, folder: Path) -> dict[int, int]:
    """The actors whose processes have come to the gate, and the node of each."""
    nodes = nodes_of(cluster)
    found: dict[int, int] = {}
    for path in folder.glob("closed-*"):
        pid = int(path.name.partition("-")[2])
        while pid and parent(pid) not in nodes:
            pid = parent(pid)
        found |= {pid: parent(pid)} if pid else {}
    return found


def stored(folder: Path, count: int) -> bool:
    """Whether so many shards are."""
    return len(list((folder / "there").glob("*/cells/*/*.parquet"))) >= count


@pytest.mark.whole
def test_whatever_goes_the_run_says_the_same(
    cluster: Cluster, folder: Path, on_cluster: dict[str, str]
) -> None:
    """In the middle a worker is killed and a node goes without a word; an attack kills more."""
    (folder / "closed").touch()
    running = started(folder, on_cluster, "slow,fgsm,poison")
    busy = eventually(lambda: len(found := keepers(cluster, folder)) == 3 and found)
    nodes = nodes_of(cluster)
    gone = next(pid for pid in busy.values() if nodes[pid] is not cluster.head_node)
    os.kill(next(pid for pid, node in busy.items() if node != gone), signal.SIGKILL)
    cluster.remove_node(nodes[gone], allow_graceful=False)
    (folder / "closed").unlink()
    try:
        done = running.wait()
    finally:
        cluster.add_node(**NODE)
    assert done.returncode == 1, done.stderr
    told = summary(folder / "there")
    assert "took down 3 processes" in told
    # Here it needs a process of its own as well, or the test would end.
    assert started(folder, None, "slow,fgsm,poison", "--workers", "1").wait().returncode == 1
    assert told == summary(folder / "here")


@pytest.mark.whole
def test_a_driver_that_was_killed_goes_on(
    cluster: Cluster, folder: Path, on_cluster: dict[str, str]
) -> None:
    """Its worker ends with it; the same command does what is missing, and nothing else."""
    (folder / "closed").touch()
    running = started(folder, on_cluster, "slow,fgsm", "--workers", "1")
    busy = eventually(lambda: stored(folder, 6) and keepers(cluster, folder))
    os.kill(running.pid, signal.SIGKILL)
    (folder / "closed").unlink()
    assert running.wait().returncode == -signal.SIGKILL
    eventually(lambda: not any(map(parent, busy)))
    before = {path: path.stat().st_mtime_ns for path in folder.glob("there/*/cells/*/*.parquet")}
    again = started(folder, on_cluster, "slow,fgsm", "--workers", "1").wait()
    assert again.returncode == 0, again.stderr
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    assert started(folder, None, "slow,fgsm", "--workers", "0").wait().returncode == 0
    assert summary(folder / "there") == summary(folder / "here")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--device", "cuda"), "has no GPU"),
        (("--device", "cuda:1"), "--device is auto, cpu or cuda"),
        (("--workers", "0"), "--workers 0 is this process, and no cluster"),
    ],
)
def test_what_a_cluster_has_not_is_refused(
    folder: Path, on_cluster: dict[str, str], more: tuple[str, ...], said: str
) -> None:
    """In one line, before anything is computed."""
    done = started(folder, on_cluster, "fgsm", *more).wait()
    assert done.returncode == 2
    assert said in done.stderr
