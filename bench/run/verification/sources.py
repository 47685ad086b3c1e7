"""What whoever verifies brings: the data, the weights and the models of a run, loaded afresh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import registry
from bench.data import open_dataset
from bench.data.reading import expanded
from bench.errors import CheckpointError, UsageError
from bench.run.prepare import dataset_record
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from bench.api import Examples
    from bench.models.contenders import Contender
    from bench.record.schema import DatasetRecord, RunRecord
    from bench.record.store import RunStore


@dataclass(frozen=True)
class Sources:
    """Where data and weights are, as whoever verifies says it."""

    dataset: str = ""
    """When not where the run found them."""
    model: str = ""
    """`FILE:FACTORY` for a run of `evaluate()`."""
    checkpoints: Mapping[str, Path] | None = None
    """Weights by defense, where they are not found by themselves."""

    def from_folder(self, record: RunRecord) -> bool:
        """Whether the examples lie in the run's folder, and nobody else has them."""
        return not (self.dataset or record.dataset.written)

    def examples(self, store: RunStore, record: RunRecord) -> tuple[Examples, DatasetRecord]:
        """The examples of a run, and what it would say of them.

        Raises:
            UsageError: they cannot be found or read.
        """
        if self.from_folder(record):
            examples = store.read_examples(record.dataset)
            return examples, dataset_record(examples, "", None)
        written = self.dataset or plain_source(record.dataset.written)
        try:
            data = open_dataset(written)
            examples = data.choose("test", record.dataset.n)
            return examples, dataset_record(examples, written, data.family, data.notes)
        except UsageError as error:
            raise UsageError(f"{error}; say where the data are with --dataset") from error

    def contenders(self, record: RunRecord, examples: Examples) -> dict[str, Contender]:
        """The defenses of a run by name, each with its weights and what transfers start from.

        Raises:
            UsageError: a defense is unknown, or its model has to be named.
            CheckpointError: weights are missing, or are not those of the run.
        """
        from bench.models.contenders import Lineup
        from bench.run.evaluation import contender_of

        # What executes a file is named by whoever verifies, never by the record alone.
        own = [
            name
            for name in record.defenses
            if not record.dataset.written or registry.defenses.create(name).executes
        ]
        names = [name for name in record.defenses if name not in own]
        written = self.dataset or record.dataset.written
        found = {name: contender_of(name, factory_model(self.model, name)) for name in own}
        if names:
            weights, norm = self.checkpoints or {}, Norm(record.norm)
            given = {name: path for name, path in weights.items() if name in names}
            asked = Lineup(written, examples, given, norm).asked(names)
            lineup = Lineup(written, examples, weights, norm)
            found |= {c.name: c for c in lineup.with_controls(asked, _starts(record))}
        for name, entry in record.defenses.items():
            digest = found[name].record.weights_digest if name in found else ""
            if digest != entry.weights_digest:
                raise CheckpointError(
                    f"{name}: these are other weights (digest {digest[:12]}) than "
                    f"those of the run ({entry.weights_digest[:12]}); name them with --checkpoint"
                )
        return {name: found[name] for name in record.defenses}


def plain_source(written: str) -> str:
    """A data set that a record names, which may be any path.

    Raises:
        UsageError: it is a pipe or a device, or cannot be looked at.
    """
    try:
        path = expanded(written.partition(":")[2])
        fine = not path.exists() or path.is_file() or path.is_dir()
    except (OSError, ValueError):
        fine = False
    if not fine:
        raise UsageError(f"the run's data are said to be {written!r}, no file and no folder")
    return written


def _starts(record: RunRecord) -> list[str]:
    """What its transfer attacks start from besides twins."""
    named = {
        str(declared.parameters.get("source", "twin"))
        for declared in record.attacks.values()
        if declared.approach == "transfer"
    }
    known = set(registry.defenses.names())
    return sorted(name for name in named - {"twin"} if name.partition("[")[0] in known)


def factory_model(written: str, name: str) -> nn.Module:
    """The model that `FILE:FACTORY` makes: a function without arguments in a Python file.

    Raises:
        UsageError: nothing given, no such file or function, or it makes no module.
    """
    if not all(written.rpartition(":")):
        raise UsageError(
            f"the run evaluated a program's own model ({name}); say what makes it with "
            "--model FILE:FACTORY, such as --model my_model.py:load"
        )
    try:
        made = registry.defenses.create(f"file:{written}")
        return made.build(network="", shape=(1, 1, 1), classes=1).eval()
    except UsageError as error:
        raise UsageError(f"--model: {error}") from error
