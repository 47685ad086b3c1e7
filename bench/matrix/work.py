"""One task, done: the attack proposes, the judge decides, outcomes and adversarial examples result.

This is what runs inside a worker process. It computes with one thread on the CPU, because the
order of additions, and with it the last digit, would otherwise depend on the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
import traceback
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from bench import registry
from bench.api import Flag, Problem, Proposal
from bench.errors import (
    AttackError,
    MemoryEndedError,
    NonFiniteLogitsError,
    WinnowError,
    in_one_line,
    is_out_of_memory,
)
from bench.matrix.frames import attack_frame, clean_frame, found_in, parts_of
from bench.matrix.loaded import Loaded
from bench.record.outcomes import Computed, Outcomes, Totals
from bench.record.provenance import Surroundings
from bench.registry.surroundings import same_environment, undisturbed
from bench.threat import ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from bench.api import Attack, Candidates, Examples
    from bench.matrix.frames import Part
    from bench.matrix.judge import Judgement
    from bench.matrix.loaded import TaskModels
    from bench.matrix.tasks import Task
    from bench.models.behaviour import Behaviour
    from bench.models.condition import Condition
    from bench.models.contenders import Contender
    from bench.models.counted import CountedModel
    from bench.record.adversarial import Found
    from bench.record.schema import Cause

#: Sets the judge's random numbers apart from the attack's.
JUDGE = 0x5EED5EED
#: From so many examples on a model is refused whose one output looks like a probability for all,
#: though all be of one class.
FEW = 8


@dataclass
class TaskResult:
    """What came of a task."""

    task: Task
    outcomes: list[Outcomes] = field(default_factory=list)
    """One per cell of the task; empty when it failed."""
    found: list[Found] = field(default_factory=list)
    """Adversarial examples, by the run's norm."""
    behaviour: Behaviour | None = None
    """How the model answers, where the task asks for that."""
    error: str = ""
    """Why it failed, in one line."""
    cause: Cause = ""
    """Why it failed, for code."""
    detail: str = ""
    """The traceback of an error that nobody expected."""
    fatal: bool = False
    """Whether it is something the user has to mend before any cell of the run can be filled."""

    @classmethod
    def raised(cls, task: Task, error: BaseException) -> Self:
        """What comes of a task in which somebody's code raised this; to be made where it did."""
        expected = isinstance(error, WinnowError)
        return cls(
            task,
            error=in_one_line(error),
            cause=_cause_of(error),
            detail="" if expected else traceback.format_exc(),
            fatal=expected and task.is_clean and not isinstance(error, MemoryEndedError),
        )


@dataclass
class Bench:
    """What a worker needs to do any task of a run."""

    examples: Examples
    contenders: Mapping[str, Contender]
    """By name, those included that transfer attacks start from."""
    device: str
    batch_size: int | None
    candidates: Mapping[str, Candidates] = field(default_factory=dict)
    """What files hold, by the attack that stands for the file."""

    @functools.cached_property
    def loaded(self) -> Loaded:
        """The models that are loaded, in the process that asks."""
        return Loaded(self.contenders, self.examples.classes, self.batch_size, self.device)

    def run(self, task: Task) -> TaskResult:
        """Do a task. Whatever a plugin raises becomes part of the result.

        Raises:
            KeyboardInterrupt: as the user's Ctrl-C does in the process of the command.
        """
        from bench.models.ambient import plain_torch

        try:
            with plain_torch(self.device):
                return self._run(task)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - a plugin may raise anything: law 6
            failed = TaskResult.raised(task, error)
            return replace(failed, fatal=failed.fatal and self._is_alone(task.cell.defense))

    def _is_alone(self, name: str) -> bool:
        """Whether a defense is all that was asked for; of several the others go on."""
        return [c.name for c in self.contenders.values() if c.role == "asked"] == [name]

    def _run(self, task: Task) -> TaskResult:
        import torch

        from bench.models.ambient import plain_torch
        from bench.models.condition import Condition

        while True:
            if self.device != "cpu":  # what an attempt before this one held, and torch keeps
                torch.cuda.empty_cache()
            models = self.loaded.of(task)
            before = [*map(Condition.of, models.every)]
            try:
                # Attacks as well: rounding to 10 bits hides what finite differences and gradients
                # of a rough model tell, and a weaker attack is a higher figure.
                with undisturbed(), same_environment(), plain_torch(self.device, task.seed):
                    result = self._work(task)(task, models)
            except BaseException as error:
                if _changed(models, before):
                    self.loaded.drop(models)
                if not is_out_of_memory(error):
                    raise
                if not self.loaded.make_room(task, models):
                    raise MemoryEndedError("out of memory, one example at a time") from error
                continue  # the same shard from the same seed, in smaller forward passes
            if changed := _changed(models, before):
                self.loaded.drop(models)
                if not task.is_clean:
                    self._check_own(task, changed)
            surroundings = Surroundings.of(self.device, models.model.batch_size)
            for outcomes in result.outcomes:
                outcomes.surroundings = surroundings
            return result

    def _check_own(self, task: Task, changed: set[str]) -> None:
        """Let a model pass that changes so by being asked alone, as one that counts its calls does.

        Raises:
            AttackError: it was the attack.
        """
        from bench.models.ambient import plain_torch
        from bench.models.condition import Condition

        models = self.loaded.of(task)
        before = [*map(Condition.of, models.every)]
        inputs, _ = self._examples([task.shard.start])
        with undisturbed(), same_environment(), plain_torch(self.device, task.seed):
            for model in models.every:
                model.probe(inputs)
        left = changed - _changed(models, before)
        self.loaded.drop(models)
        if left:
            raise AttackError(
                f"the attack left the model changed: its {' and '.join(sorted(left))}"
            )

    def _work(self, task: Task) -> Callable[[Task, TaskModels], TaskResult]:
        if not task.is_clean:
            return self._attack
        return self._clean if task.cells else self._identify

    def _identify(self, task: Task, models: TaskModels) -> TaskResult:
        from bench.models.behaviour import Behaviour

        model = models.model
        inputs, _ = self._examples(task.active)
        model.probe(inputs)
        first = task.shard.number == 0
        behaviour = Behaviour.of(model, inputs, task.seed, gradients=first)
        return TaskResult(task, behaviour=behaviour)

    def _clean(self, task: Task, models: TaskModels) -> TaskResult:
        from bench.matrix.judge import DRAWS, is_randomised, predict

        model = models.model
        inputs, labels = self._examples(range(task.shard.start, task.shard.stop))
        if len(self.examples) >= FEW or bool((labels != labels[0]).any()):
            model.check_single(self._parts(task))
        model.reset_counts()
        started = time.perf_counter()
        draws = DRAWS if is_randomised(model, inputs) else 1
        prediction = predict(model, inputs, labels, draws=draws)
        totals = _totals(model, started, attack_forwards=0)
        return TaskResult(task, [Outcomes(clean_frame(task, labels, prediction), totals)])

    def _parts(self, task: Task) -> Iterator[Tensor]:
        """The clean inputs of the run in parts of a shard, its own first."""
        start, stop = task.shard.start, task.shard.stop
        yield self._examples(range(start, stop))[0]
        for first in range(0, len(self.examples), stop - start):
            last = min(first + stop - start, len(self.examples))
            yield self._examples(range(first, last))[0]

    def _attack(self, task: Task, models: TaskModels) -> TaskResult:
        model = models.model
        attack = registry.attacks.create(task.cell.attack)
        started = time.perf_counter()
        problem = dataclasses.replace(
            self._problem(task, model, attack),
            surrogates=dict(models.surrogates),
            source=models.source,
        )
        proposal = None
        if len(problem.inputs):
            with contextlib.ExitStack() as asking:
                if attack.scope != "evidence":  # a probe goes on where answers are not finite
                    for asked in models.every:
                        asking.enter_context(asked.unhurried())
                proposal = attack.run(problem.of_its_own())
            if not isinstance(proposal, Proposal):
                raise AttackError(
                    f"the attack returned {type(proposal).__name__}, not a bench.api.Proposal"
                )
        result = TaskResult(task)
        for helper in models.helpers:
            model.charge(helper)
        spent = model.forwards
        flags = tuple(map(Flag.of, proposal.flags)) if proposal else ()
        for part in parts_of(task, problem, proposal):
            judgement = self._judge(task, model, part)
            frame = attack_frame(task, self.examples.labels, judgement, part)
            computed = _computed(task, part.position)
            result.outcomes.append(Outcomes(frame, flags=flags, computed=computed))
            result.found += found_in(task, judgement, frame, part)
        # A computation that serves several epsilons is charged to the first.
        result.outcomes[0].totals = _totals(model, started, attack_forwards=spent)
        return result

    def _problem(self, task: Task, model: CountedModel, attack: Attack) -> Problem:
        """What an attack is asked, but for what it gets beside the model."""
        import torch

        rows: list[int] = list(task.active)
        epsilon, epsilons = float(task.cells[0][1]), None
        if task.rows is not None:
            rows = [i for some in task.rows for i in some]
            each = torch.tensor([float(e) for _, e in task.cells], dtype=torch.float64)
            epsilons = each.repeat_interleave(torch.tensor([*map(len, task.rows)]))
            epsilons = epsilons.to(self.device)
        inputs, labels = self._examples(rows)
        return Problem(
            model=model,
            inputs=inputs,
            labels=labels,
            norm=task.norm,
            epsilon=epsilon if attack.kind == "fixed" and len(task.cells) == 1 else None,
            classes=self.examples.classes,
            seed=task.seed if task.rows is None else task.row_seed,
            randomised=_draws(task) > 1,
            candidates=self._held(task),
            epsilons=epsilons,
            examples=torch.tensor(rows, device=self.device),
            bracket=task.bracket,
        )

    def _judge(self, task: Task, model: CountedModel, part: Part) -> Judgement | None:
        from bench.matrix.judge import judge
        from bench.models.ambient import plain_torch

        if part.candidates is None or not len(part.candidates):
            return None
        threat = ThreatModel(task.norm, task.cells[part.position][1])
        # Draws that no attack has seen: whatever it did with the generators is undone here, and
        # whatever it did with the precision.
        with plain_torch(self.device, task.seed ^ JUDGE), model.unhurried():
            return judge(
                model, part.inputs, part.labels, part.candidates, threat, draws=_draws(task)
            )

    def _held(self, task: Task) -> Tensor | None:
        """What a file holds for the examples of a task."""
        import torch

        held = self.candidates.get(task.cell.attack)
        return torch.from_numpy(held.of(task.active)).to(self.device) if held else None

    def _examples(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs and labels, on the device."""
        some = self.examples.take(list(rows))
        return some.inputs.to(self.device), some.labels.to(self.device)


def _totals(model: CountedModel, started: float, *, attack_forwards: int) -> Totals:
    judge_forwards = model.forwards - attack_forwards
    seconds = time.perf_counter() - started
    return Totals(model.forwards, model.backwards, judge_forwards, seconds)


def _changed(models: TaskModels, before: Sequence[Condition]) -> set[str]:
    """What differs of some model from how it was."""
    from bench.models.condition import Condition

    now = map(Condition.of, models.every)
    return set().union(*(new.changed(old) for new, old in zip(now, before, strict=True)))


def _computed(task: Task, position: int) -> Computed | None:
    """What the outcomes of a cell have to say of the computation that they are part of."""
    if task.rows is None:
        return None
    return Computed(tuple(str(e.exact) for _, e in task.cells), task.rows[position])


def _draws(task: Task) -> int:
    """How often the judge asks."""
    return task.clean.draws if task.clean else 1


def _cause_of(error: BaseException) -> Cause:
    """Why a cell has no figure whose task raised this."""
    if isinstance(error, NonFiniteLogitsError):
        return "not-finite"
    return "out-of-memory" if isinstance(error, MemoryEndedError) else "raised"
