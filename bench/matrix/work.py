"""One task, done: the attack proposes, the judge decides, outcomes and adversarial examples result.

This is what runs inside a worker process. It computes with one thread on the CPU, because the
order of additions, and with it the last digit, would otherwise depend on the machine.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.api import Problem, Proposal
from bench.errors import AttackError, ModelError, UsageError, WinnowError
from bench.matrix.plan import CLEAN
from bench.record.adversarial import Found
from bench.record.outcomes import Outcomes, Totals
from bench.threat import Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from torch import Tensor, nn

    from bench.api import Examples
    from bench.matrix.judge import Judgement, Prediction
    from bench.matrix.model import CountedModel
    from bench.matrix.plan import Task

#: Makes the module of a defense, weights loaded; called once in each worker.
Loader = Callable[[], "nn.Module"]


@dataclass
class TaskResult:
    """What came of a task."""

    task: Task
    outcomes: list[Outcomes] = field(default_factory=list)
    """One per cell of the task; empty when it failed."""
    found: list[Found] = field(default_factory=list)
    """Adversarial examples, by the run's norm."""
    error: str = ""
    """Why it failed, in one line."""
    detail: str = ""
    """The traceback of an error that nobody expected."""
    fatal: bool = False
    """Whether it is something the user has to mend before any cell can run."""


@dataclass
class Bench:
    """What a worker needs to do any task of a run."""

    examples: Examples
    loaders: dict[str, Loader]
    norm: Norm
    device: str
    batch_size: int | None
    _models: dict[str, CountedModel] = field(default_factory=dict, repr=False)

    def model(self, name: str) -> CountedModel:
        """A defense's model, built on first use."""
        from bench.matrix.model import CountedModel

        if name not in self._models:
            self._models[name] = CountedModel(
                self.loaders[name](), self.examples.classes, self.batch_size, self.device
            )
        return self._models[name]

    def run(self, task: Task) -> TaskResult:
        """Do a task. Whatever a plugin raises becomes part of the result."""
        try:
            with one_thread(self.device):
                return self._run(task)
        except (ModelError, UsageError) as error:
            return TaskResult(task, error=_one_line(error), fatal=task.attack == CLEAN)
        except WinnowError as error:
            return TaskResult(task, error=_one_line(error))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything: law 6
            return TaskResult(task, error=_one_line(error), detail=traceback.format_exc())

    def _run(self, task: Task) -> TaskResult:
        from bench.matrix.isolation import isolated_generators

        while True:
            model = self.model(task.target)
            weights = _versions(model)
            try:
                with isolated_generators(task.seed):
                    result = (
                        self._clean(task, model)
                        if task.attack == CLEAN
                        else self._attack(task, model)
                    )
            except Exception as error:
                self._restore_after(task, model, weights)
                if not _is_out_of_memory(error):
                    raise
                if not model.halve():
                    raise AttackError("out of memory, one example at a time") from error
                continue  # the same shard from the same seed, in smaller forward passes
            if self._restore_after(task, model, weights):
                raise AttackError("the attack changed the model's weights")
            return result

    def _restore_after(self, task: Task, model: CountedModel, before: list[int]) -> bool:
        """Drop a model that an attack tampered with; the next task loads it afresh."""
        changed = _versions(model) != before or model.training
        if changed:
            del self._models[task.target]
        return changed

    def _clean(self, task: Task, model: CountedModel) -> TaskResult:
        from bench.matrix.judge import predict
        from bench.matrix.model import full_precision

        inputs, labels = self._shard(task)
        model.reset_counts()
        started = time.perf_counter()
        with full_precision():
            prediction = predict(model, inputs, labels)
        totals = _totals(model, started, attack_forwards=0)
        n = len(inputs)
        frame = _frame(
            index=range(task.start, task.stop),
            label=labels.tolist(),
            clean_prediction=prediction.classes.tolist(),
            prediction=prediction.classes.tolist(),
            attacked=[False] * n,
            broken=prediction.wrong.tolist(),
            projected=[False] * n,
            distances=[[0.0 if wrong else float("nan") for wrong in prediction.wrong.tolist()]] * 3,
            margin=prediction.margins.tolist(),
            faults=[""] * n,
        )
        return TaskResult(task, [Outcomes(frame, totals)])

    def _attack(self, task: Task, model: CountedModel) -> TaskResult:
        attack = registry.attacks.create(task.attack)
        inputs, labels = self._shard(task)
        rows = [index - task.start for index in task.active]
        model.reset_counts()
        started = time.perf_counter()
        proposal = None
        if rows:
            problem = Problem(
                model=model,
                inputs=inputs[rows].clone(),
                labels=labels[rows].clone(),
                norm=self.norm,
                epsilon=float(task.cells[0][1]) if attack.kind == "fixed" else None,
                classes=self.examples.classes,
                seed=task.seed,
            )
            proposal = attack.run(problem)
            if not isinstance(proposal, Proposal):
                raise AttackError(
                    f"the attack returned {type(proposal).__name__}, not a bench.api.Proposal"
                )
        result = TaskResult(task)
        spent = model.forwards
        for position, (_, epsilon) in enumerate(task.cells):
            threat = ThreatModel(self.norm, epsilon)
            judgement = self._judge(model, inputs[rows], labels[rows], proposal, threat)
            frame = self._outcome_frame(task, inputs, labels, rows, judgement, proposal)
            flags = proposal.flags if proposal else ()
            result.outcomes.append(Outcomes(frame, flags=flags))
            result.found += _found(task, judgement, frame, rows, position, self.norm)
        # A computation that serves several epsilons is charged to the first.
        result.outcomes[0].totals = _totals(model, started, attack_forwards=spent)
        return result

    def _judge(
        self,
        model: CountedModel,
        inputs: Tensor,
        labels: Tensor,
        proposal: Proposal | None,
        threat: ThreatModel,
    ) -> Judgement | None:
        from bench.matrix.judge import judge
        from bench.matrix.model import full_precision

        if proposal is None:
            return None
        with full_precision():
            return judge(model, inputs, labels, proposal.candidates, threat)

    def _shard(self, task: Task) -> tuple[Tensor, Tensor]:
        span = slice(task.start, task.stop)
        return (
            self.examples.inputs[span].to(self.device).contiguous(),
            self.examples.labels[span].to(self.device),
        )

    def _outcome_frame(
        self,
        task: Task,
        inputs: Tensor,
        labels: Tensor,
        rows: list[int],
        judgement: Judgement | None,
        proposal: Proposal | None,
    ) -> Any:
        """The outcomes of all examples of the shard: those attacked, and the others as they are."""
        import numpy as np

        n = len(inputs)
        clean = np.array(task.clean_predictions)
        broken = clean != labels.cpu().numpy()
        prediction, projected = np.full(n, -1), np.zeros(n, dtype=bool)
        attacked, margin = np.zeros(n, dtype=bool), np.full(n, np.nan)
        faults = [""] * n
        distances = np.full((3, n), np.nan)
        distances[:, broken] = 0.0
        prediction[broken] = clean[broken]
        if judgement is not None:
            judged: Prediction = judgement.prediction
            attacked[rows] = True
            prediction[rows] = judged.classes.cpu().numpy()
            margin[rows] = judged.margins.cpu().numpy()
            broken[rows] = judgement.broken.cpu().numpy()
            projected[rows] = judgement.projected.cpu().numpy()
            for place, fault in zip(rows, judgement.faults, strict=True):
                faults[place] = fault
            hit = judgement.broken.cpu().numpy()
            for line, norm in enumerate((Norm.LINF, Norm.L2, Norm.L1)):
                moved = norm.distance(inputs[rows], judgement.judged).cpu().numpy()
                distances[line, rows] = np.where(hit, moved, np.nan)
        frame = _frame(
            index=range(task.start, task.stop),
            label=labels.tolist(),
            clean_prediction=clean.tolist(),
            prediction=prediction.tolist(),
            attacked=attacked.tolist(),
            broken=broken.tolist(),
            projected=projected.tolist(),
            distances=distances.tolist(),
            margin=margin.tolist(),
            faults=faults,
        )
        for name, values in (proposal.extra if proposal else {}).items():
            column = np.full(n, np.nan)
            column[rows] = np.asarray(values, dtype=float)
            frame[f"extra_{name}"] = column
        return frame


def _totals(model: CountedModel, started: float, *, attack_forwards: int) -> Totals:
    judge_forwards = model.forwards - attack_forwards
    seconds = time.perf_counter() - started
    return Totals(model.forwards, model.backwards, judge_forwards, seconds)


def _frame(
    *,
    index: Sequence[int],
    label: list[int],
    clean_prediction: list[int],
    prediction: list[int],
    attacked: list[bool],
    broken: list[bool],
    projected: list[bool],
    distances: list[list[float]],
    margin: list[float],
    faults: list[str],
) -> Any:
    import pandas as pd

    return pd.DataFrame(
        {
            "index": list(index),
            "label": label,
            "clean_prediction": clean_prediction,
            "prediction": prediction,
            "attacked": attacked,
            "broken": broken,
            "projected": projected,
            "distance_linf": distances[0],
            "distance_l2": distances[1],
            "distance_l1": distances[2],
            "margin": margin,
            "draws": 1,
            "wrong_draws": [int(value) for value in broken],
            "fault": faults,
        }
    )


def _found(
    task: Task,
    judgement: Judgement | None,
    frame: Any,
    rows: list[int],
    position: int,
    norm: Norm,
) -> list[Found]:
    """The adversarial examples of one judgement."""
    if judgement is None:
        return []
    distances = frame[f"distance_{norm.value.lower()}"]
    origin = f"{task.attack} @ {task.cells[position][1]}"
    judged: np.ndarray = judgement.judged.cpu().numpy()
    return [
        Found(task.start + place, float(distances[place]), origin, judged[line])
        for line, place in enumerate(rows)
        if bool(judgement.broken[line])
    ]


@contextlib.contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Compute with one CPU thread, and put the number back."""
    import torch

    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _versions(model: nn.Module) -> list[int]:
    """In-place changes that each parameter and buffer has seen."""
    return [tensor._version for tensor in (*model.parameters(), *model.buffers())]


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "not enough memory" in str(error)
    )


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, WinnowError):
        return text[:500]
    return f"{type(error).__name__}: {text}"[:500]
