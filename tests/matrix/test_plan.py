"""Plans: keys, seeds, tasks."""

from __future__ import annotations

import dataclasses

import tests.plugins  # noqa: F401 - registers the attacks
from bench import registry
from bench.matrix.plan import CLEAN, Setting, cell_key, plan_cells
from bench.matrix.tasks import shard_seed, tasks_for
from bench.models.contenders import Target
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
TARGET = Target("relu", {"weights": "w"})


def test_a_key_changes_with_whatever_could_change_an_outcome() -> None:
    """Weights, data, attack parameters, epsilon, seed, shard size, device, norm."""
    attack = registry.attacks.create("pgd")
    epsilon = SETTING.epsilons[0]
    variants = [
        cell_key(TARGET, attack, epsilon, SETTING),
        cell_key(Target("relu", {"weights": "other"}), attack, epsilon, SETTING),
        cell_key(TARGET, registry.attacks.create("pgd[steps=7]"), epsilon, SETTING),
        cell_key(TARGET, attack, SETTING.epsilons[1], SETTING),
        cell_key(TARGET, attack, epsilon, SETTING, remaining=[1, 2]),
        *(
            cell_key(TARGET, attack, epsilon, dataclasses.replace(SETTING, **change))
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
    attack = registry.attacks.create("pgd")
    assert cell_key(TARGET, attack, Epsilon.parse("1/10"), SETTING) == cell_key(
        TARGET, attack, Epsilon.parse("0.1"), SETTING
    )


def test_seeds_differ_between_shards_epsilons_and_runs_and_repeat() -> None:
    """Each (run seed, attack, epsilon, shard) has a seed of its own, always the same."""
    low, high = SETTING.epsilons
    seeds = [
        shard_seed(run, attack, Norm.LINF, epsilon, shard)
        for run in (0, 1)
        for attack in ("pgd", "square")
        for epsilon in (low, high, None)
        for shard in (0, 1)
    ]
    assert len(set(seeds)) == len(seeds) == 24
    assert seeds[0] == shard_seed(0, "pgd", Norm.LINF, low, 0)
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_minimum_norm_attack_runs_once_for_all_epsilons() -> None:
    """Fixed-epsilon attacks get a task per epsilon and shard, minimum-norm ones per shard."""
    attacks = [registry.attacks.create(name) for name in ("test-best", "test-minimum")]
    cells = [c for c in plan_cells([TARGET], attacks, SETTING) if c.attack_name != CLEAN]
    tasks = tasks_for(cells, SETTING, clean={}, active={})
    assert sum(task.attack == "test-best" for task in tasks) == 2 * 3
    minimum = [task for task in tasks if task.attack == "test-minimum"]
    assert [len(task.cells) for task in minimum] == [2, 2, 2]
    assert [(t.start, t.stop) for t in sorted(minimum, key=lambda t: t.shard)] == [
        (0, 50),
        (50, 100),
        (100, 110),
    ]


def test_what_is_stored_is_not_done_again() -> None:
    """A stored shard of one epsilon leaves the other epsilon of a minimum-norm attack to do."""
    cells = [
        cell
        for cell in plan_cells([TARGET], [registry.attacks.create("test-minimum")], SETTING)
        if cell.attack_name != CLEAN
    ]
    stored = {(cells[0].key, 1), *((cell.key, 2) for cell in cells)}
    planned = tasks_for(cells, SETTING, clean={}, active={})
    tasks = [task.missing(lambda key, shard: (key, shard) in stored) for task in planned]
    by_shard = {task.shard: [epsilon.text for _, epsilon in task.cells] for task in tasks}
    assert by_shard == {0: ["0.1", "0.2"], 1: ["0.2"], 2: []}


def test_a_cell_that_cannot_run_carries_its_reason() -> None:
    """No silent gap: an attack of another norm is planned as skipped."""
    cells = plan_cells([TARGET], [registry.attacks.create("gaussian-noise")], SETTING)
    assert [cell.skipped for cell in cells if cell.attack_name != CLEAN] == [
        "searches in L2 only",
        "searches in L2 only",
    ]
