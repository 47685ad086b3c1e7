"""Whose run a folder holds: the model's that answers as the one did whose figures are in it."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections import defaultdict
from typing import TYPE_CHECKING

from bench.api import Cost
from bench.errors import ModelError, PluginWarning, StoreError
from bench.matrix.tasks import Shard, Task, shard_seed
from bench.record.schema import CLEAN, Cell
from bench.record.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from bench.api import Examples
    from bench.matrix.execute import InProcess, Pool
    from bench.matrix.plan import Setting
    from bench.models.behaviour import Behaviour
    from bench.models.counted import CountedModel
    from bench.record.schema import RunRecord
    from bench.run.prepare import Prepared

#: Logits of one answer to all inputs: a model that is randomised has 32 of them kept.
MOST_LOGITS = 2**20


def behaviour_path(store: RunStore, key: str) -> Path:
    """Where a run keeps what a defense answered."""
    return store.folder / "behaviour" / f"{key}.safetensors"


def identify(prepared: Prepared, executor: InProcess | Pool) -> dict[str, Behaviour]:
    """What every defense, control and start of a run answers, by its key.

    One that raises has none: its cells will say why.

    Raises:
        ModelError: the one defense that was asked for does not answer with finite logits.
    """
    from bench.models.behaviour import Behaviour

    contenders = {c.name: c for c in (*prepared.contenders, *prepared.starts)}
    tasks = [task for name in contenders for task in _tasks(name, prepared.setting)]
    parts: dict[str, dict[int, Behaviour]] = defaultdict(dict)
    for result in executor.run(tasks, lambda busy: None):
        name = result.task.cell.defense
        if result.fatal:
            raise ModelError(f"{name}: {result.error}")
        if result.behaviour is not None:
            parts[name][result.task.shard.number] = result.behaviour
    count = len(_blocks(prepared.setting.shards(), prepared.setting.classes))
    return {
        contenders[name].key: Behaviour.joined([found[number] for number in range(count)])
        for name, found in parts.items()
        if len(found) == count
    }


def _tasks(name: str, setting: Setting) -> list[Task]:
    cell = Cell(defense=name, attack=CLEAN, epsilon="0")
    return [
        Task(
            cell=cell,
            shard=Shard(number, start, stop),
            cells=(),
            seed=shard_seed(setting.seed, cell, setting.norm, None, number),
            norm=setting.norm,
            cost=Cost(4 * (stop - start)),
            active=tuple(range(start, stop)),
        )
        for number, (start, stop) in enumerate(_blocks(setting.shards(), setting.classes))
    ]


def _blocks(shards: list[tuple[int, int]], classes: int) -> list[tuple[int, int]]:
    """The shards whose examples a model is known by: all, but for many with many classes."""
    return [(start, stop) for start, stop in shards if not start or stop * classes <= MOST_LOGITS]


def own_run(prepared: Prepared) -> Prepared:
    """The run that is there already of these very models, or that would be made.

    Raises:
        ModelError, StoreError: as `identify` and `settled` do.
    """
    if RunStore(prepared.folder).read_record() is None:
        return prepared
    with contextlib.closing(prepared.executor()) as executor:
        return settled(prepared, identify(prepared, executor))


def settled(prepared: Prepared, answers: Mapping[str, Behaviour]) -> Prepared:
    """The run whose folder these models may use: the first that holds none of others.

    Two models of the same weights that answer differently have runs of their own, `variant` 0, 1, …
    in the order in which they came; the first is forgotten where the user asks for that.

    Warns where a folder of the same weights was passed over.
    """
    fresh, passed = prepared.config.fresh, ""
    while True:
        stored, difference = None, ""
        with contextlib.suppress(StoreError) if fresh else contextlib.nullcontext():
            store = RunStore(prepared.folder)
            stored = store.read_record()
            difference = _difference(prepared, store, stored, answers) if stored else ""
        if not difference:
            break
        passed = passed or f"{difference} than in {prepared.folder}, which has the same weights"
        prepared = dataclasses.replace(prepared, variant=prepared.variant + 1)
    if fresh and stored is None:
        prepared = dataclasses.replace(prepared, variant=0)
    elif passed:
        warnings.warn(f"{passed}: another run, in {prepared.folder}", PluginWarning, stacklevel=2)
    return prepared


def _difference(
    prepared: Prepared, store: RunStore, record: RunRecord, answers: Mapping[str, Behaviour]
) -> str:
    """Which model answers otherwise than in a stored run, and how; empty where none does."""
    from bench.models.behaviour import Behaviour

    for contender in (*prepared.contenders, *prepared.starts):
        path = behaviour_path(store, contender.key)
        if path.is_file():
            now = answers.get(contender.key)
            how = Behaviour.load(path).difference(now) if now else "no answer"
        else:
            how = _older(prepared.examples, store, record, contender.name, answers)
        if how:
            return f"{contender.name} gives other answers ({how})"
    return ""


def _older(
    examples: Examples,
    store: RunStore,
    record: RunRecord,
    name: str,
    answers: Mapping[str, Behaviour],
) -> str:
    """How a model differs from what a run says of it that kept no logits: by its margins."""
    import numpy as np

    entry = record.defenses.get(name)
    now = answers.get(entry.key) if entry else None
    cells = [c for c in record.cells if (c.defense, c.attack, c.status) == (name, CLEAN, "ok")]
    if now is None or now.randomised or len(cells) != 1:
        return ""
    frames = [outcomes.frame for outcomes in store.shards(cells[0].key)]
    if not frames or any((frame["draws"] > 1).any() for frame in frames):
        return ""
    stored = np.concatenate([frame["margin"].to_numpy() for frame in frames])
    margins = now.margins(examples.labels.cpu().numpy())
    if len(stored) != len(margins):
        return ""
    differing = int((~np.isclose(stored, margins, rtol=1e-2, atol=1e-2 * now.size)).sum())
    return f"other margins for {differing} of {len(margins)} inputs" if differing else ""


def keep(store: RunStore, answers: Mapping[str, Behaviour]) -> None:
    """Store what is not stored yet of these answers, or was by a run that left no record.

    Raises:
        StoreError: the disk is full, or the folder cannot be written.
    """
    begun = store.read_record() is not None
    for key, behaviour in answers.items():
        path = behaviour_path(store, key)
        if not (begun and path.is_file()):
            behaviour.save(path)


def behaviour_faults(
    store: RunStore, record: RunRecord, name: str, model: CountedModel, examples: Examples
) -> list[str]:
    """Whether a model is the one that a stored run is about, a sentence where not.

    Runs of older versions kept no logits, and nothing is said of them.
    """
    from bench.models.behaviour import Behaviour
    from bench.threat import Norm

    path = behaviour_path(store, record.defenses[name].key)
    if not path.is_file():
        return []
    cell = Cell(defense=name, attack=CLEAN, epsilon="0")
    parts = []
    size = record.shard_size
    shards = [(at, min(at + size, len(examples))) for at in range(0, len(examples), size)]
    for number, (start, stop) in enumerate(_blocks(shards, examples.classes)):
        block = examples.take(range(start, stop)).inputs.to(model.device)
        seed = shard_seed(record.seed, cell, Norm(record.norm), None, number)
        parts.append(Behaviour.of(model, block, seed, gradients=number == 0))
    how = Behaviour.load(path).difference(Behaviour.joined(parts))
    return [f"{name} gives other answers than the model of the run ({how})"] if how else []
