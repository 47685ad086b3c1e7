"""Does Winnow break what is broken, and trust what is honest? The canaries and honest models, run.

A canary passes when it is broken down to its twin's robust accuracy or not called credible, and
one of its pieces of evidence was raised. An honest model passes when it is called credible, or
broken where no more survive than by guessing.
"""

from __future__ import annotations

import concurrent.futures
import itertools
import multiprocessing
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bench.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.testing.canaries import Canary

CREDIBLE = "credible"
#: Models evaluated at a time, each on one thread.
WORKERS = 2
#: Passes of escalation per example: enough to break k-WTA as far as its twin, and not for the long
#: searches on its last survivors, which would be a third of the self-test.
ESCALATION = 4_000
_MODEL = "model"


@dataclass(frozen=True)
class Job:
    """One model to evaluate at one epsilon."""

    name: str
    """Of a canary or an honest model."""
    seed: int
    """Of its training, of the examples, and of the attacks."""
    epsilon: str
    """Of the Linf ball, as written."""
    n: int
    """Test examples."""
    device: str = "cpu"
    """Where the model is attacked; it is trained on the CPU."""


@dataclass(frozen=True)
class Diagnosis:
    """What Winnow said of one model."""

    clean_accuracy: float | None = None
    robust_accuracy: float | None = None
    """The worst case; it and its interval are None where it is not known."""
    low: float | None = None
    high: float | None = None
    verdict: str = ""
    """credible, broken, suspect or unreliable; empty where there is none."""
    evidence: tuple[str, ...] = ()
    """Identifiers of what was raised, in the order of the summary."""
    seconds: float = 0.0
    error: str = ""
    """Why there is nothing to judge; else empty."""


@dataclass(frozen=True)
class Row:
    """One model at one epsilon, judged."""

    name: str
    seed: int
    epsilon: str
    diagnosis: Diagnosis
    twin: Diagnosis | None
    """Of the twin, for canaries; None for honest models."""
    passed: bool
    reason: str
    """Why it passed or not, in one sentence."""


@dataclass(frozen=True)
class Ended:
    """One evaluation of a self-test, and how many ended with it."""

    job: Job
    diagnosis: Diagnosis
    done: int
    total: int


def selftest(
    *,
    seeds: Sequence[int] = (0,),
    n: int = 50,
    epsilons: Sequence[str] = ("0.1",),
    names: Sequence[str] | None = None,
    workers: int | None = None,
    device: str = "cpu",
    on_progress: Callable[[Ended], None] = lambda ended: None,
) -> list[Row]:
    """Train, evaluate and judge canaries and honest models, in processes of their own.

    Args:
        seeds: each trains its own models, and draws their examples and attacks.
        n: test examples per model.
        epsilons: radii of the Linf ball, as written; each is evaluated on its own.
        names: of canaries and honest models; where None all whose data are there.
        workers: processes at a time; by default two, or one where there is one core.
        device: where models are attacked: `cpu`, `cuda:0`. What they are is the same everywhere.
        on_progress: called whenever a model's evaluation ended.

    Returns:
        A row for each name, epsilon and seed, in this order from the inside out. The twins of
        the canaries among `names` are evaluated too, but have rows only if they are named.

    Raises:
        UnknownNameError: there is no such model.
        UsageError: an epsilon, a seed, a number of examples or a model that is not allowed.
    """
    chosen = _chosen(names)
    jobs = [replace(job, device=device) for job in _jobs(chosen, seeds, epsilons, n)]
    found: dict[Job, Diagnosis] = {}
    for job, diagnosis in _evaluate_all(jobs, workers or min(WORKERS, os.cpu_count() or 1)):
        found[job] = diagnosis
        on_progress(Ended(job, diagnosis, len(found), len(jobs)))
    return [_judge(job, found) for job in jobs if job.name in chosen]


def _chosen(names: Sequence[str] | None) -> list[str]:
    """Those names, or all that can be examined here, in the order in which they are reported.

    Raises:
        UnknownNameError: there is no such model.
        UsageError: one of them cannot be examined here.
    """
    from bench.testing.canaries import CANARIES
    from bench.testing.honest import HONEST

    known = [*CANARIES, *HONEST]
    for name in names or ():
        if name not in known:
            raise UnknownNameError("canary or honest model", name, known)
        if name in HONEST and HONEST[name].why_not:
            raise UsageError(f"honest model {name!r} cannot be examined: {HONEST[name].why_not}")
    able = [name for name in known if name not in HONEST or not HONEST[name].why_not]
    return [name for name in able if names is None or name in names]


def _jobs(
    chosen: Sequence[str], seeds: Sequence[int], epsilons: Sequence[str], n: int
) -> list[Job]:
    """One for each of the chosen and of the canaries' twins, epsilon and seed.

    Raises:
        UsageError: an epsilon, a seed or a number of examples that is not allowed.
    """
    from bench.data import subset
    from bench.testing.canaries import CANARIES
    from bench.testing.honest import digits
    from bench.threat import Epsilon, Norm, ThreatModel

    for seed in seeds:
        subset(digits()[1], n, seed)
    for epsilon in Epsilon.parse_many(epsilons):
        ThreatModel(Norm.LINF, epsilon)
    twins = [CANARIES[name].twin for name in chosen if name in CANARIES]
    every = itertools.product(seeds, epsilons, [*twins, *chosen])
    return list(dict.fromkeys(Job(name, seed, epsilon, n) for seed, epsilon, name in every))


def _judge(job: Job, found: dict[Job, Diagnosis]) -> Row:
    from bench.testing.canaries import CANARIES

    canary = CANARIES.get(job.name)
    if canary is None:
        return _judge_honest(job, found[job])
    return _judge_canary(job, canary, found[job], found[replace(job, name=canary.twin)])


def _judge_canary(job: Job, canary: type[Canary], diagnosis: Diagnosis, twin: Diagnosis) -> Row:
    raised = [item for item in canary.evidence if item in diagnosis.evidence]
    robust, limit = diagnosis.robust_accuracy, twin.high
    broken = robust is not None and limit is not None and robust <= limit
    doubted = diagnosis.verdict not in ("", CREDIBLE)
    faults = [diagnosis.error] if diagnosis.error else []
    if not (faults or broken or doubted):
        figure = "unknown" if robust is None else f"{robust:.2f}"
        bound = "unknown" if limit is None else f"at most {limit:.2f}"
        faults.append(
            f"its robust accuracy is {figure} (its twin's: {bound}) and its verdict is "
            f"{diagnosis.verdict or 'missing'}"
        )
    if not (diagnosis.error or raised):
        faults.append(
            f"of the evidence {', '.join(canary.evidence)} nothing was raised (but: "
            f"{', '.join(diagnosis.evidence) or 'nothing'})"
        )
    if faults:
        reason = "; ".join(faults)
    else:
        outcomes = ["broken as far as its twin"] * broken
        outcomes += [f"called {diagnosis.verdict}"] * doubted
        reason = f"{' and '.join(outcomes)}: {', '.join(raised)}"
    return Row(job.name, job.seed, job.epsilon, diagnosis, twin, not faults, reason)


def _judge_honest(job: Job, diagnosis: Diagnosis) -> Row:
    passed = diagnosis.verdict in (CREDIBLE, "broken") and not diagnosis.error
    if passed:
        reason = f"called {diagnosis.verdict}"
    elif diagnosis.error:
        reason = diagnosis.error
    elif not diagnosis.verdict:
        reason = "there is no verdict"
    else:
        reason = f"false alarm: called {diagnosis.verdict} ({', '.join(diagnosis.evidence)})"
    return Row(job.name, job.seed, job.epsilon, diagnosis, None, passed, reason)


def _evaluate_all(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Diagnosis]]:
    """Each job's diagnosis as it ends; what raises, or ends its process, is one too."""
    pool = concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker
    )
    try:
        futures = {pool.submit(_attempt, job): job for job in jobs}
        for future in concurrent.futures.as_completed(futures):
            error = future.exception()
            yield futures[future], _failure(error) if error else future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _attempt(job: Job) -> Diagnosis:
    try:
        return evaluate_job(job)
    except Exception as error:  # noqa: BLE001 - a failure is a result; not every error can be sent
        return _failure(error)


def _failure(error: BaseException) -> Diagnosis:
    return Diagnosis(error=" ".join(f"{type(error).__name__}: {error}".split()))


def _start_worker() -> None:
    import torch

    torch.set_num_threads(1)


def evaluate_job(job: Job) -> Diagnosis:
    """Train a model, or take it from this process's cache, and evaluate it.

    Raises:
        UnknownNameError: there is no such model.
        UsageError: an epsilon or a number of examples that is not allowed.
    """
    from bench.data import subset
    from bench.run.evaluation import evaluate
    from bench.testing import honest
    from bench.testing.canaries import CANARIES

    started = time.monotonic()
    canary = CANARIES.get(job.name)
    module = canary.build(job.seed) if canary else honest.build(job.name, job.seed)
    origin = honest.HONEST[canary.twin if canary else job.name]
    examples = subset(origin.examples, job.n, job.seed)
    summary = evaluate(
        module,
        examples.inputs,
        examples.labels,
        epsilons=[job.epsilon],
        attacks="quick",
        name=_MODEL,
        seed=job.seed,
        device=job.device,
        escalation_budget=ESCALATION * job.n,
    ).summary
    defense = summary["defenses"][_MODEL]
    worst = defense["worst_case"][summary["headline"]]
    return Diagnosis(
        clean_accuracy=defense["clean_accuracy"],
        robust_accuracy=worst["robust_accuracy"],
        low=worst["low"],
        high=worst["high"],
        verdict=worst.get("verdict") or "",
        evidence=tuple(
            item["id"] for item in defense.get("evidence", ()) if item["status"] == "fail"
        ),
        seconds=time.monotonic() - started,
    )
