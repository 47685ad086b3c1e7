"""The models that a worker has loaded: which a task asks, in what batches, and which may go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import registry
from bench.matrix.plan import start_of
from bench.registry.surroundings import undisturbed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from bench.matrix.tasks import Task
    from bench.models.contenders import Contender
    from bench.models.counted import CountedModel


@dataclass(frozen=True)
class TaskModels:
    """What one task asks."""

    model: CountedModel
    """Of its defense."""
    surrogates: Mapping[str, CountedModel] = field(default_factory=dict)
    """Of its defense as well, where its attack takes them; their passes count as the model's."""
    source: CountedModel | None = None
    """That a transfer starts from."""

    @property
    def helpers(self) -> list[CountedModel]:
        """All but the model."""
        return [*self.surrogates.values(), *([self.source] if self.source else [])]

    @property
    def every(self) -> list[CountedModel]:
        """All of them."""
        return [self.model, *self.helpers]


@dataclass
class Loaded:
    """The models that were loaded so far.

    All models of a task are asked in batches of one size, which its outcomes note. Where memory
    ended it is kept for the same attack on the same defense: others may need less.
    """

    contenders: Mapping[str, Contender]
    """By name."""
    classes: int
    batch_size: int | None
    """Of the largest forward pass, where memory suffices; None for no limit."""
    device: str
    _models: dict[str, CountedModel] = field(default_factory=dict, repr=False)
    _surrogates: dict[str, dict[str, CountedModel]] = field(default_factory=dict, repr=False)
    _sizes: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)

    def model(self, name: str) -> CountedModel:
        """A defense's model, built on first use."""
        if name not in self._models:
            with undisturbed():
                self._models[name] = self._counted(self.contenders[name].load())
        return self._models[name]

    def of(self, task: Task) -> TaskModels:
        """What a task asks, loaded before its random numbers begin.

        Whatever makes a module draws some: drawn from the shard's, they would make its outcome
        depend on whether the module had been made already, for another shard.
        """
        name = task.cell.defense
        model, surrogates, source = self.model(name), {}, None
        if not task.is_clean:
            attack = registry.attacks.create(task.cell.attack)
            if attack.needs == "surrogates" or attack.takes_surrogates:
                surrogates = self._surrogates_of(name)
            if attack.needs == "source":
                source = self.model(self.contenders[name].starts[start_of(attack)][0])
        found = TaskModels(model, surrogates, source)
        for each in found.every:
            each.batch_size = self._sizes.get(_place(task), self.batch_size)
            each.reset_counts()
        return found

    def make_room(self, task: Task, models: TaskModels) -> bool:
        """After memory ended: let others' models go, or else halve the batches of a task.

        Returns:
            Whether trying again may help: not where single examples were asked already.
        """
        if self._evict(task, models):
            return True
        size = max(models.every, key=lambda each: each.turn).asked
        if size == 1:  # one of the others keeps more
            size = max(each.asked for each in models.every)
        if not size:  # nothing was asked yet
            rows = len(task.active) or task.shard.stop - task.shard.start
            size = min(models.model.batch_size or rows, rows)
        self._sizes[_place(task)] = (size + 1) // 2
        return size > 1

    def drop(self, models: TaskModels) -> None:
        """Have the models of a task loaded afresh when they are asked next."""
        self._models = {k: each for k, each in self._models.items() if each not in models.every}
        helpers = models.surrogates.values()
        self._surrogates = {
            name: each
            for name, each in self._surrogates.items()
            if not {*each.values()} & {*helpers}
        }

    def _evict(self, task: Task, models: TaskModels) -> bool:
        """Whether there were models that the task does not ask."""
        before = len(self._models) + len(self._surrogates)
        self._models = {k: each for k, each in self._models.items() if each in models.every}
        self._surrogates = {
            name: each
            for name, each in self._surrogates.items()
            if name == task.cell.defense and models.surrogates
        }
        return len(self._models) + len(self._surrogates) < before

    def _surrogates_of(self, name: str) -> dict[str, CountedModel]:
        if name not in self._surrogates:
            load = self.contenders[name].load_surrogates
            with undisturbed():
                modules = load() if load else {}
            self._surrogates[name] = {key: self._counted(each) for key, each in modules.items()}
        return self._surrogates[name]

    def _counted(self, module: nn.Module) -> CountedModel:
        from bench.models.counted import CountedModel

        return CountedModel(module, self.classes, self.batch_size, self.device)


def _place(task: Task) -> tuple[str, str]:
    """What keeps a size of its own."""
    return task.cell.defense, task.cell.label
