"""One task, done: the attack proposes, the judge decides, outcomes and adversarial examples result.

This is what runs inside a worker process. It computes with one thread on the CPU, because the
order of additions, and with it the last digit, would otherwise depend on the machine.
"""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import registry
from bench.api import Problem, Proposal
from bench.errors import AttackError, WinnowError
from bench.matrix.frames import attack_frame, clean_frame, found_in
from bench.matrix.plan import CLEAN
from bench.models.counted import one_thread
from bench.record.outcomes import Outcomes, Totals
from bench.threat import ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from torch import Tensor, nn

    from bench.api import Candidates, Examples
    from bench.matrix.judge import Judgement
    from bench.matrix.tasks import Task
    from bench.models.contenders import Loader
    from bench.models.counted import CountedModel
    from bench.record.outcomes import Found

#: Sets the judge's random numbers apart from the attack's.
JUDGE = 0x5EED5EED


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
    surrogate_loaders: dict[str, Callable[[], dict[str, nn.Module]]]
    device: str
    batch_size: int | None
    candidates: Mapping[str, Candidates] = field(default_factory=dict)
    """What files hold, by the attack that stands for the file."""
    _models: dict[str, CountedModel] = field(default_factory=dict, repr=False)
    _surrogates: dict[str, dict[str, CountedModel]] = field(default_factory=dict, repr=False)

    def model(self, name: str) -> CountedModel:
        """A defense's model, built on first use."""
        from bench.models.counted import CountedModel

        if name not in self._models:
            self._models[name] = CountedModel(
                self.loaders[name](), self.examples.classes, self.batch_size, self.device
            )
        return self._models[name]

    def surrogates(self, name: str) -> dict[str, CountedModel]:
        """The surrogates of a defense, built on first use; their passes are counted as its own."""
        from bench.models.counted import CountedModel

        if name not in self._surrogates:
            self._surrogates[name] = {
                key: CountedModel(module, self.examples.classes, self.batch_size, self.device)
                for key, module in self.surrogate_loaders[name]().items()
            }
        return self._surrogates[name]

    def run(self, task: Task) -> TaskResult:
        """Do a task. Whatever a plugin raises becomes part of the result."""
        try:
            with one_thread(self.device):
                return self._run(task)
        except WinnowError as error:
            return TaskResult(task, error=_one_line(error), fatal=task.attack == CLEAN)
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything: law 6
            return TaskResult(task, error=_one_line(error), detail=traceback.format_exc())

    def _run(self, task: Task) -> TaskResult:
        from bench.models.counted import full_precision, isolated_generators

        while True:
            model = self.model(task.target)
            weights = _versions(model)
            try:
                # Attacks as well: rounding to 10 bits hides what finite differences and gradients
                # of a rough model tell, and a weaker attack is a higher figure.
                with isolated_generators(task.seed), full_precision():
                    result = (
                        self._clean(task, model)
                        if task.attack == CLEAN
                        else self._attack(task, model)
                    )
            except Exception as error:
                self._restore_after(task, model, weights)
                if not _is_out_of_memory(error):
                    raise
                for surrogate in self._surrogates.get(task.target, {}).values():
                    surrogate.halve()
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
        from bench.matrix.judge import DRAWS, is_randomised, predict

        inputs, labels = self._examples(range(task.start, task.stop))
        model.reset_counts()
        started = time.perf_counter()
        draws = DRAWS if is_randomised(model, inputs) else 1
        prediction = predict(model, inputs, labels, draws=draws)
        totals = _totals(model, started, attack_forwards=0)
        return TaskResult(task, [Outcomes(clean_frame(task, labels, prediction), totals)])

    def _attack(self, task: Task, model: CountedModel) -> TaskResult:
        attack = registry.attacks.create(task.attack.partition("#")[0])
        held = self.candidates.get(task.attack)
        surrogates = self.surrogates(task.target) if task.surrogates else {}
        source = self.model(task.source) if task.source else None
        helpers = [*surrogates.values(), *([source] if source else [])]
        for helper in helpers:
            helper.reset_counts()
        inputs, labels = self._examples(task.active)
        model.reset_counts()
        started = time.perf_counter()
        proposal = None
        if task.active:
            problem = Problem(
                model=model,
                inputs=inputs.clone(),
                labels=labels.clone(),
                norm=task.norm,
                epsilon=float(task.cells[0][1]) if attack.kind == "fixed" else None,
                classes=self.examples.classes,
                seed=task.seed,
                surrogates=dict(surrogates),
                source=source,
                randomised=task.clean_draws > 1,
                candidates=self._on_device(held.of(task.active)) if held else None,
            )
            proposal = attack.run(problem)
            if not isinstance(proposal, Proposal):
                raise AttackError(
                    f"the attack returned {type(proposal).__name__}, not a bench.api.Proposal"
                )
        result = TaskResult(task)
        for helper in helpers:
            model.charge(helper)
        spent = model.forwards
        for position, (_, epsilon) in enumerate(task.cells):
            threat = ThreatModel(task.norm, epsilon)
            judgement = self._judge(task, model, inputs, labels, proposal, threat)
            shard = self.examples.labels[task.start : task.stop]
            frame = attack_frame(task, shard, inputs, judgement, proposal)
            flags = proposal.flags if proposal else ()
            result.outcomes.append(Outcomes(frame, flags=flags))
            result.found += found_in(task, judgement, frame, position)
        # A computation that serves several epsilons is charged to the first.
        result.outcomes[0].totals = _totals(model, started, attack_forwards=spent)
        return result

    def _judge(
        self,
        task: Task,
        model: CountedModel,
        inputs: Tensor,
        labels: Tensor,
        proposal: Proposal | None,
        threat: ThreatModel,
    ) -> Judgement | None:
        from bench.matrix.judge import judge
        from bench.models.counted import full_precision, isolated_generators

        if proposal is None:
            return None
        # Draws that no attack has seen: whatever it did with the generators is undone here, and
        # whatever it did with the precision.
        with full_precision(), isolated_generators(task.seed ^ JUDGE):
            return judge(model, inputs, labels, proposal.candidates, threat, draws=task.clean_draws)

    def _on_device(self, array: np.ndarray) -> Tensor:
        import torch

        return torch.from_numpy(array).to(self.device)

    def _examples(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs and labels, on the device."""
        chosen = list(rows)
        return (
            self.examples.inputs[chosen].to(self.device),
            self.examples.labels[chosen].to(self.device),
        )


def _totals(model: CountedModel, started: float, *, attack_forwards: int) -> Totals:
    judge_forwards = model.forwards - attack_forwards
    seconds = time.perf_counter() - started
    return Totals(model.forwards, model.backwards, judge_forwards, seconds)


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
