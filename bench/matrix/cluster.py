"""Hands on a cluster: Ray's actors, each of which keeps a process on its machine.

An actor takes one CPU or one GPU. It runs no guest itself: that does a process of its own, as on
this machine, so that what it dies of, and how long it may take, are the same. An actor that dies on
a machine that goes on counts as its guest's death; one that goes with its machine, or cannot be
reached, counts for nobody. Actors end with the driver, which alone writes: the same command goes on
from what is stored.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.data.cache import cache_folder
from bench.errors import HandsError, UsageError, in_one_line
from bench.matrix.apart import apart
from bench.matrix.execute import Died, Lost
from bench.matrix.local import LocalHand
from bench.matrix.luggage import Sent, packed, unpack
from bench.record.provenance import Surroundings

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.matrix.execute import News
    from bench.matrix.tasks import Task
    from bench.matrix.work import Bench

#: Seconds without any worker after which a run stops.
PATIENCE = 600.0
#: Actors in a row that cannot start before a run stops.
ATTEMPTS = 3


def connected(address: str) -> Any:
    """Ray, as a driver of the cluster at an address.

    Args:
        address: `ray` for the cluster that this machine belongs to, or `ray://HOST:PORT`.

    Raises:
        UsageError: another address, Ray is not installed, or there is no cluster.
    """
    if address != "ray" and not address.startswith("ray://"):
        raise UsageError(f"--executor has to be local, ray or ray://HOST:PORT (got {address!r})")
    try:
        import ray
    except ImportError as error:
        raise UsageError(
            f"--executor {address} needs Ray: pip install 'winnow-bench[ray]' ({error})"
        ) from error
    if not ray.is_initialized():
        # Processes are forked from this one that never speak to the cluster.
        os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
        try:
            ray.init(
                "auto" if address == "ray" else address,
                log_to_driver=False,
                configure_logging=False,
                logging_level="ERROR",
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"no cluster at {address} ({in_one_line(error)}); start one with: ray start --head"
            ) from error
    return ray


def device_on(address: str, written: str) -> str:
    """What workers of a cluster compute on: `cpu`, or the GPU that each of them has.

    Raises:
        UsageError: `connected`'s; another device; or a cluster without GPUs.
    """
    kind = written.strip().lower()
    if kind not in ("auto", "cpu", "cuda"):
        raise UsageError(
            f"on a cluster --device is auto, cpu or cuda: a worker each (got {written!r})"
        )
    gpus = connected(address).cluster_resources().get("GPU", 0)
    if kind == "cuda" and not gpus:
        raise UsageError(f"the cluster at {address} has no GPU (got --device {written})")
    return "cuda:0" if gpus and kind != "cpu" else "cpu"


def places_on(address: str, device: str) -> int:
    """How many workers a cluster has room for now."""
    resources = connected(address).cluster_resources()
    return max(1, int(resources.get("CPU" if device == "cpu" else "GPU", 0)))


class Keeper:
    """The actor: what a worker's process needs, and the process.

    Args:
        bench: as luggage has it.
        contents: what the worker's folder holds, by SHA-256.
        blobs: references to those files, by SHA-256; fetched where the node has none.
        device: where it computes.
    """

    def __init__(
        self, bench: bytes, contents: dict[str, str], blobs: dict[str, Any], device: str
    ) -> None:
        import ray

        folder = Path(tempfile.mkdtemp(prefix="winnow-worker-"))
        unpack(contents, folder, cache_folder() / "nodes", lambda digest: ray.get(blobs[digest]))
        os.chdir(folder)
        # Else every process that starts from here would import the program of Ray's workers.
        vars(sys.modules["__main__"]).pop("__file__", None)
        self.device = device
        arrived: Any = Sent(bench, folder)
        self.hand = LocalHand(arrived, device, folder)

    def surroundings(self) -> tuple[Surroundings, str]:
        """Those of its worker, and the node."""
        import ray

        node: str = ray.get_runtime_context().get_node_id()
        if self.device == "cpu":
            return Surroundings.of(self.device), node
        return apart(_surroundings, self.device), node  # CUDA starts in no process that forks

    def do(self, task: Task, limit: float | None) -> News:
        """What comes of a task."""
        self.hand.send(task, limit)
        return self.hand.wait()


def _surroundings(say: Callable[[str], None], device: str) -> Surroundings:
    return Surroundings.of(device)


class RayHand:
    """An actor, as the driver knows it."""

    def __init__(self, actor: Any) -> None:
        self.actor = actor
        self.node = ""
        """Where it is; empty until it is ready."""
        self.task: Task | None = None
        self.reference: Any = actor.surroundings.remote()
        """What is awaited of it: first that it is ready, then what comes of its task."""

    def send(self, task: Task, limit: float | None) -> None:
        """Have it do a task."""
        self.task, self.reference = task, self.actor.do.remote(task, limit)


class RayHands:
    """Actors on a cluster, started as there is work for them and room.

    Args:
        bench: what they need.
        address: of the cluster.
        count: of actors, at most.
    """

    def __init__(self, bench: Bench, address: str, count: int) -> None:
        self.ray = connected(address)
        self.count, self.device = count, bench.device
        self.surroundings: Surroundings | None = None
        """Of all its workers, once the first is ready."""
        self._hands: list[RayHand] = []
        self._faults: list[str] = []
        """Of actors that could not start, since the last that could."""
        self._seen = time.monotonic()
        """When there was a worker, last."""
        luggage = packed(bench)
        self._bench = self.ray.put(luggage.bench)
        self._contents = luggage.contents
        self._blobs = {
            digest: self.ray.put(path.read_bytes()) for digest, path in luggage.files.items()
        }

    def idle(self, wanted: int) -> list[RayHand]:
        """Those that have nothing to do, of as many as there is work for."""
        while len(self._hands) < min(wanted, self.count):
            self._hands.append(RayHand(self._actor()))
        return [hand for hand in self._hands if hand.reference is None]

    def news(self) -> list[tuple[Task, News]]:
        """What came of tasks.

        Raises:
            HandsError: nobody could be started, for ten minutes or for a reason.
            UsageError: workers whose last digits would differ.
        """
        if any(hand.node for hand in self._hands):
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > PATIENCE:
            raise HandsError(f"no worker on the cluster for {PATIENCE:.0f} s; {CONTINUE}")
        awaited = {hand.reference: hand for hand in self._hands if hand.reference is not None}
        ready, _ = self.ray.wait(list(awaited), timeout=1.0)
        if ready:
            ready, _ = self.ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        found: list[tuple[Task, News]] = []
        for reference in ready:
            hand = awaited[reference]
            if hand.task is None:
                self._begin(hand)
            else:
                found.append((hand.task, self._result(hand)))
        return found

    def close(self) -> None:
        """End all actors at once, whatever they are doing."""
        for hand in self._hands:
            self._drop(hand)
        self._blobs.clear()

    def _actor(self) -> Any:
        share = {"num_cpus": 1} if self.device == "cpu" else {"num_cpus": 0, "num_gpus": 1}
        actor = self.ray.remote(Keeper).options(max_restarts=0, max_task_retries=0, **share)
        return actor.remote(self._bench, self._contents, self._blobs, self.device)

    def _begin(self, hand: RayHand) -> None:
        """Take up an actor that is ready, or note why it is not."""
        try:
            surroundings, hand.node = self.ray.get(hand.reference)
        except self.ray.exceptions.RayError as error:
            self._drop(hand)
            if _out_of_reach(error):
                return
            self._faults.append(in_one_line(error.cause if hasattr(error, "cause") else error))
            if len(self._faults) == ATTEMPTS:
                raise HandsError(
                    f"{ATTEMPTS} workers in a row could not start, the last: {self._faults[-1]}; "
                    f"{CONTINUE}"
                ) from error
            return
        hand.reference = None
        self._faults.clear()
        first = self.surroundings = self.surroundings or surroundings
        if not first.alike(surroundings):
            raise UsageError(
                f"workers of several kinds round differently, and a run has to be of one: {first} "
                f"and {surroundings}; take the nodes of one of them out of the cluster"
            )

    def _result(self, hand: RayHand) -> News:
        try:
            news: News = self.ray.get(hand.reference)
        except self.ray.exceptions.RayError as error:
            self._drop(hand)
            why = in_one_line(error)
            if _out_of_reach(error) or hand.node not in self._alive():
                return Lost(why)
            return Died(f"ended with the actor that kept it ({why[:200]})", str(error))
        hand.task = hand.reference = None
        return news

    def _alive(self) -> set[str]:
        return {node["NodeID"] for node in self.ray.nodes() if node["Alive"]}

    def _drop(self, hand: RayHand) -> None:
        self._hands = [each for each in self._hands if each is not hand]
        with contextlib.suppress(Exception):  # whatever Ray says of what is gone
            self.ray.kill(hand.actor)


#: What every error of a cluster ends with.
CONTINUE = "what was finished is stored, and the same command continues"


def _out_of_reach(error: Exception) -> bool:
    """Whether the way to an actor failed: what Ray says first of a node that is gone."""
    from ray.exceptions import ActorUnavailableError, ObjectLostError

    return isinstance(error, (ActorUnavailableError, ObjectLostError))
