"""Plans: keys, seeds, tasks."""

from __future__ import annotations

import dataclasses

import tests.plugins  # noqa: F401 - registers the attacks
from bench import registry
from bench.matrix.plan import Planned, Setting, plan
from bench.matrix.tasks import shard_seed, tasks_for
from bench.models.contenders import Contender
from bench.record.schema import Cell, DefenseRecord
from bench.threat import Epsilon, Norm

SETTING = Setting(
    norm=Norm.LINF,
    epsilons=tuple(Epsilon.parse_many(["0.1", "0.2"])),
    seed=0,
    n=110,
    shape=(1, 8, 8),
    classes=10,
    data_digest="d",
    device_type="cpu",
    shard_size=50,
)


def contender(weights: str) -> Contender:
    """ReLU with these weights; nothing loads it."""
    record = DefenseRecord(key="k", network="cnn", weights_digest=weights, checkpoint="c")
    return Contender("relu", {"weights": weights}, record, load=lambda: None)  # type: ignore[arg-type, return-value]


RELU = contender("w")


def key(
    attack: str,
    epsilon: str = "0.1",
    *,
    setting: Setting = SETTING,
    of: Contender = RELU,
    attacked: list[int] | None = None,
    repeat: int = 0,
) -> str:
    """The key of a cell."""
    cell = Cell(defense=of.name, attack=attack, epsilon=epsilon, repeat=repeat)
    planned = Planned(cell, of, registry.attacks.create(attack))
    return planned.keyed(setting, attacked).key


def attacking(*names: str) -> list[Planned]:
    """The cells of these attacks on ReLU."""
    attacks = [registry.attacks.create(name) for name in names]
    return [planned for planned in plan([RELU], attacks, SETTING) if planned.attack]


def test_a_key_changes_with_whatever_could_change_an_outcome() -> None:
    """Weights, data, attack parameters, epsilon, seed, repeat, shard size, device, norm."""
    variants = [
        key("pgd"),
        key("pgd", of=contender("other")),
        key("pgd[steps=7]"),
        key("pgd", "0.2"),
        key("pgd", attacked=[1, 2]),
        key("pgd", repeat=1),
        *(
            key("pgd", setting=dataclasses.replace(SETTING, **change))
            for change in (
                {"seed": 1},
                {"data_digest": "e"},
                {"shard_size": 25},
                {"device_type": "cuda"},
                {"norm": Norm.L2},
            )
        ),
    ]
    assert len(set(variants)) == len(variants)


def test_a_key_does_not_depend_on_how_an_epsilon_is_written() -> None:
    """`0.1` and `1/10` are one epsilon, and one key."""
    assert key("pgd", "1/10") == key("pgd", "0.1")


def test_seeds_differ_between_shards_epsilons_and_runs_and_repeat() -> None:
    """Each (run seed, attack, repeat, epsilon, shard) has a seed of its own, always the same."""
    low, high = SETTING.epsilons
    cells = [Cell(attack=a, epsilon="0.1", repeat=r) for a in ("pgd", "square") for r in (0, 1)]
    seeds = [
        shard_seed(run, cell, Norm.LINF, epsilon, shard)
        for run in (0, 1)
        for cell in cells
        for epsilon in (low, high, None)
        for shard in (0, 1)
    ]
    assert len(set(seeds)) == len(seeds) == 48
    assert seeds[0] == shard_seed(0, cells[0], Norm.LINF, low, 0)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_minimum_norm_attack_runs_once_for_all_epsilons() -> None:
    """Fixed-epsilon attacks get a task per epsilon and shard, minimum-norm ones per shard."""
    tasks = tasks_for(attacking("test-best", "test-minimum"), SETTING, clean={})
    assert sum(task.cell.attack == "test-best" for task in tasks) == 2 * 3
    minimum = [task for task in tasks if task.cell.attack == "test-minimum"]
    assert [len(task.cells) for task in minimum] == [2, 2, 2]
    assert sorted(task.shard for task in minimum) == [(0, 0, 50), (1, 50, 100), (2, 100, 110)]


def test_what_is_stored_is_not_done_again() -> None:
    """A stored shard of one epsilon leaves the other epsilon of a minimum-norm attack to do."""
    cells = attacking("test-minimum")
    stored = {(cells[0].key, 1), *((planned.key, 2) for planned in cells)}
    tasks = [
        task.missing(lambda key, shard: (key, shard) in stored)
        for task in tasks_for(cells, SETTING, clean={})
    ]
    left = {task.shard.number: [epsilon.text for _, epsilon in task.cells] for task in tasks}
    assert left == {0: ["0.1", "0.2"], 1: ["0.2"], 2: []}


def test_a_cell_that_cannot_run_carries_its_reason() -> None:
    """No silent gap: an attack of another norm is planned as skipped."""
    cells = attacking("gaussian-noise")
    assert [planned.why_not for planned in cells] == [("not-here", "searches in L2 only")] * 2
