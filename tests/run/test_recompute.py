"""Shards computed again from their seeds: honest runs come out equal, what is forged does not."""

from __future__ import annotations

import collections
import dataclasses
import shutil
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench import registry
from bench.api import Flag
from bench.errors import UsageError
from bench.matrix.execute import InProcess
from bench.matrix.plan import Planned
from bench.record.provenance import Surroundings
from bench.record.schema import CLEAN
from bench.record.store import RunStore, open_run
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.run.rebuild import Rebuilder, Source
from bench.run.recompute import Recomputed, recompute
from bench.run.sampling import Sampling, draw
from bench.run.verification import verify_run
from bench.trust import asked
from tests.run.test_imports import N, judged, shifted
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.record.outcomes import Outcomes

EPSILONS = ["0.01", "0.02", "0.05"]
ATTACKS = "test-random,test-best,test-minimum,test-small-remaining"
#: Those that take all epsilons in one batch.
ROWS = "test-best-rows,test-small-remaining-rows"
FACTORIES = (
    "import torch\n"
    "from tests.toy_models import Sum\n"
    "from tests.run.test_recompute import OwnNoise, Noise\n"
)


class Noise(nn.Module):
    """`Sum` with noise from torch's global generator, which the run seeds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2), others at each call."""
        s = (x - 0.5).flatten(1).sum(dim=1) + 0.4 * torch.randn(len(x))
        return torch.stack([-s, s], dim=1)


class OwnNoise(nn.Module):
    """The same from a generator of its own, which no seed of the run reaches."""

    drawn = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 2), others at each call."""
        OwnNoise.drawn += 1
        generator = torch.Generator().manual_seed(OwnNoise.drawn)
        s = (x - 0.5).flatten(1).sum(dim=1) + 0.4 * torch.randn(len(x), generator=generator)
        return torch.stack([-s, s], dim=1)


def evaluated(out: Path, model: nn.Module | None = None, **changes: Any) -> Path:
    """A run of twenty examples in shards of six, some of them swept."""
    examples = linear_examples()
    options = {"attacks": ATTACKS, "epsilons": EPSILONS, "shard_size": 6, **changes}
    result = attack_only(model or Sum(), examples.inputs, examples.labels, out=out, **options)
    assert result.folder is not None
    return result.folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An honest run of `Sum`."""
    return evaluated(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return shutil.copytree(finished, tmp_path / finished.name)


@pytest.fixture(scope="module")
def factories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that makes the models."""
    path = tmp_path_factory.mktemp("models") / "models.py"
    path.write_text(FACTORIES)
    return path


@pytest.fixture
def again(factories: Path) -> Callable[..., Recomputed]:
    """Computes a share of a run again."""

    def computed(folder: Path, share: str = "all", seed: int = 0, model: str = "Sum") -> Recomputed:
        source = Source("cpu", model=f"{factories}:{model}")
        return recompute(folder, Sampling.parse(share, seed), source)

    return computed


def cell_of(folder: Path, attack: str, epsilon: str) -> str:
    """The key of a cell."""
    _, record = open_run(folder)
    return next(c.key for c in record.cells if (c.attack, c.epsilon) == (attack, epsilon))


def shards(folder: Path) -> int:
    """How many are stored."""
    return len(list(folder.glob("cells/*/*.parquet")))


def test_an_honest_run_comes_out_the_same_to_the_last_digit(
    finished: Path, again: Callable[..., Recomputed]
) -> None:
    """Rows, a minimum-norm attack, what a sweep left out, what others left, random numbers."""
    found = again(finished)
    assert found.differences == ()
    assert found.exact == found.computed == found.drawn == found.stored == shards(finished) > 40
    assert found.whole
    assert found.found == 1
    assert "a single one forged would have been found" in found.text


@pytest.mark.usefixtures("gradients_alone")
@pytest.mark.parametrize("examine", [False, True])
def test_what_took_all_epsilons_in_one_batch_is_computed_in_that_batch(
    tmp_path: Path, again: Callable[..., Recomputed], factories: Path, examine: bool
) -> None:
    """Whole rows, what others left, and what its attack left out; a later epsilon stays apart.

    And its keys follow from what the whole batch was asked.
    """
    for epsilons in (["0.01", "0.05"], EPSILONS):
        folder = evaluated(
            tmp_path, attacks=ROWS, epsilons=epsilons, examine=examine, escalate=False
        )
        found = again(folder)
        assert found.differences == ()
        assert found.whole
        faults = verify_run(folder, model=f"{factories}:Sum", device="cpu").faults
        assert [fault for fault in faults if "is called examined" not in fault] == []


def test_a_batch_of_which_a_part_was_stored_accuses_nobody(
    tmp_path: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between its cells, the rest is computed in another batch: the part is not proven."""
    original, puts = RunStore.put, iter(range(100))

    def killed(*arguments: Any) -> None:
        original(*arguments)
        if next(puts) == 8:  # of clean predictions four, and a shard of the attack is three
            raise KeyboardInterrupt

    monkeypatch.setattr(RunStore, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path, attacks="test-best-rows")
    monkeypatch.setattr(RunStore, "put", original)
    found = again(evaluated(tmp_path, attacks="test-best-rows"))
    assert found.differences == ()
    assert [(shards, reason) for _, shards, reason in found.left_out] == [
        (1, "what it was computed with is not all here")
    ] * 2
    assert found.exact == found.computed == found.stored - 2


@pytest.mark.parametrize("batch_size", [1, 4])
def test_forward_passes_have_the_size_that_they_had(
    tmp_path: Path, again: Callable[..., Recomputed], batch_size: int
) -> None:
    """Of a randomised defense they decide the draws: each shard notes it, memory's end as well."""
    folder = evaluated(
        tmp_path, Noise(), attacks="test-best,test-hungry", epsilons=["0.02"], batch_size=batch_size
    )
    assert again(folder, model="Noise").whole


def test_a_run_that_was_killed_and_extended_comes_out_the_same(
    tmp_path: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its minimum-norm attack was computed for one epsilon, then for more, and charged twice."""
    evaluated(tmp_path, attacks="test-minimum", epsilons=["0.02"])
    original = InProcess.run

    def killed(self, tasks, on_busy):  # type: ignore[no-untyped-def]
        for done, result in enumerate(original(self, tasks, on_busy)):
            if done == 5:
                raise KeyboardInterrupt
            yield result

    monkeypatch.setattr(InProcess, "run", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluated(tmp_path)
    monkeypatch.setattr(InProcess, "run", original)
    assert again(evaluated(tmp_path)).whole


def first_true(frame: Any, column: str) -> int:
    """The first row in which something holds."""
    return int(np.flatnonzero(frame[column] & frame["attacked"])[0])


def unbroken(outcomes: Outcomes) -> None:
    """A broken example that held, all its columns in agreement."""
    frame: Any = outcomes.frame
    row = first_true(frame, "broken")
    frame.loc[row, "broken"] = False
    frame.loc[row, ["distance_linf", "distance_l2", "distance_l1"]] = np.nan
    frame.loc[row, ["wrong_draws", "choice_wrong_draws"]] = 0
    frame.loc[row, "prediction"] = frame.loc[row, "label"]
    frame.loc[row, "margin"] = 0.5


def broken(outcomes: Outcomes) -> None:
    """One that held, broken."""
    frame = outcomes.frame
    row = int(np.flatnonzero(~frame["broken"] & frame["attacked"])[0])
    frame.loc[row, "broken"] = True
    frame.loc[row, ["distance_linf", "distance_l2", "distance_l1"]] = 0.001


def column(name: str, change: Callable[[Any], Any]) -> Callable[[Outcomes], None]:
    """One value of a broken example, changed."""

    def forge(outcomes: Outcomes) -> None:
        row = first_true(outcomes.frame, "broken")
        outcomes.frame.loc[row, name] = change(outcomes.frame.loc[row, name])

    return forge


def passes(name: str, more: int) -> Callable[[Outcomes], None]:
    """One of a shard's totals, changed."""

    def forge(outcomes: Outcomes) -> None:
        setattr(outcomes.totals, name, getattr(outcomes.totals, name) + more)

    return forge


def flagged(outcomes: Outcomes) -> None:
    """A flag that no attack raised."""
    outcomes.flags = (*outcomes.flags, Flag("winner-take-all", "smoothed"))


PASSES = ("forwards", "backwards", "the judge's forwards")
FORGERIES = {
    "unbroken": unbroken,
    "broken": broken,
    "distance": column("distance_linf", lambda d: d * 0.999),
    "distance in another norm": column("distance_l2", lambda d: d + 1e-9),
    "margin": column("margin", lambda m: m * 1.0001),
    "prediction": column("prediction", lambda p: p + 2),
    "clean prediction": column("clean_prediction", lambda p: p + 2),
    "label": column("label", lambda label: 1 - label),
    "draws": column("draws", lambda _: 100),
    "wrong draws": column("wrong_draws", lambda _: 0),
    "chosen draws": column("choice_wrong_draws", lambda w: w + 1),
    "projected": column("projected", lambda p: not p),
    "fault": column("fault", lambda _: "not finite"),
    "forwards": passes("forwards", 1),
    "backwards": passes("backwards", 7),
    "the judge's forwards": passes("judge_forwards", 1),
    "flags": flagged,
}


@pytest.mark.parametrize("attack", ["test-copy[number=1]", "test-minimum"])
def test_every_single_forged_value_is_found_and_nothing_else(
    tmp_path: Path, again: Callable[..., Recomputed], attack: str
) -> None:
    """Each in a shard of its own, where alone something differs."""
    folder = evaluated(
        tmp_path,
        attacks=f"test-best,{attack}",
        epsilons=["0.02", "0.021", "0.022", "0.023", "0.024", "0.025", "0.026", "0.027"],
        shard_size=7,
    )
    _, record = open_run(folder)
    store, _ = open_run(folder)
    mine = [cell for cell in record.cells if cell.attack == attack]
    places = [(cell, number) for number in range(3) for cell in mine]
    expected = set()
    for (cell, number), (name, forge) in zip(places, FORGERIES.items(), strict=False):
        outcomes = store.get(cell.key, number)
        forge(outcomes)
        outcomes.save(store.shard_path(cell.key, number))
        # The passes of a minimum-norm attack are those of its first cell.
        charged = mine[0] if name in PASSES and attack == "test-minimum" else cell
        expected.add(f"model × {attack} @ {charged.epsilon}, examples {7 * number}")
    assert len(places) >= len(FORGERIES)
    found = again(folder)
    assert {text.partition(" to ")[0] for text in found.differences} == expected
    assert "NOT as stored" in found.text
    assert not found.whole


@pytest.mark.parametrize(
    ("attack", "epsilon"), [("test-best", "0.05"), ("test-small-remaining", "0.02")]
)
def test_an_example_that_was_taken_out_of_a_cell_is_found(
    forged: Path,
    again: Callable[..., Recomputed],
    monkeypatch: pytest.MonkeyPatch,
    attack: str,
    epsilon: str,
) -> None:
    """With a key to match: nothing among the other cells says why it was not attacked."""
    store, record = open_run(forged)
    cell = next(c for c in record.cells if (c.attack, c.epsilon) == (attack, epsilon))
    outcomes = store.get(cell.key, 0)
    frame = outcomes.frame
    row = int(np.flatnonzero(frame["attacked"])[0])
    frame.loc[row, ["attacked", "broken"]] = False
    outcomes.save(store.shard_path(cell.key, 0))
    monkeypatch.setattr(Planned, "keyed", lambda self, *_: self)
    texts = [text for text in again(forged).differences if "left out example(s) 0" in text]
    assert len(texts) == 1
    assert attack in texts[0]


@pytest.mark.whole
def test_measured_numbers_are_computed_again(swept: Path, tmp_path: Path) -> None:
    """One of what each shard of an evidence cell measured, changed in the last digits.

    All the rest comes out the same in this process as in the two workers that the run had.
    """
    folder = shutil.copytree(swept, tmp_path / swept.name)
    store, record = open_run(folder)
    expected = set()
    for cell in [cell for cell in record.cells if cell.scope == "evidence" and cell.status == "ok"]:
        for number, outcomes in enumerate(store.shards(cell.key)):
            frame = outcomes.frame
            measured = [
                str(c) for c in frame if str(c).startswith("extra_") and frame[c].notna().any()
            ]
            for name in measured[number : number + 1]:
                frame[name] = frame[name] * (1 + 1e-12) + 1e-12
                outcomes.save(store.shard_path(cell.key, number))
                expected.add((f"kwta × {cell.label} @ {cell.epsilon}, examples {5 * number}", name))
    assert len(expected) > 1
    found = recompute(folder, Sampling.parse("all", 0), Source("cpu")).differences
    assert {(text.partition(" to ")[0], text.split()[9]) for text in found} == expected


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """k-WTA swept, measured and escalated, in two workers; the examination asks for little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "bench.run.inquiry.requests",
            lambda case, menu: [asked("probe-gradients", case.headline.text)],
        )
        stronger = {"scope": "remaining", "round": 1}
        patch.setattr(
            "bench.run.inquiry.escalate",
            lambda evidence, case, menu, number: [
                asked("margin-pgd", case.headline.text).model_copy(update=stronger)
            ][: number == 1],
        )
        config = RunConfig(
            defenses=("kwta",),
            attacks="fgsm,deepfool,square[queries=50],transfer[source=relu-at],surrogate",
            n=8,
            epsilons=("0.02", "0.05", "0.1"),
            shard_size=5,
            workers=2,
            twins=False,
            out=tmp_path_factory.mktemp("runs"),
        )
        result = run(prepare(config))
    assert result.folder is not None
    return result.folder


@pytest.mark.whole
def test_a_defense_examined_and_escalated_comes_out_the_same(swept: Path) -> None:
    """Of every scope, with surrogates and another defense to start from; in two workers again."""
    _, record = open_run(swept)
    cells = [cell for cell in record.cells if cell.status == "ok"]
    assert {cell.scope for cell in cells} == {"all", "remaining", "evidence", "check"}
    assert any(cell.inferred for cell in cells)
    assert any(cell.round for cell in cells)
    found = recompute(swept, Sampling.parse("all", 0, workers=2), Source("cpu"))
    assert found.differences == ()
    assert found.left_out == ()
    assert found.whole


@pytest.mark.whole
def test_a_random_search_comes_out_the_same_whatever_was_computed_before(swept: Path) -> None:
    """The source of a transfer is made on first use, which draws random numbers of its own."""
    store, record = open_run(swept)
    rebuilder = Rebuilder(store, record, Source("cpu"))
    task = next(r.task for r in rebuilder.tasks() if r.task.cell.attack.startswith("transfer"))
    bench = rebuilder.bench(None)
    first, second = (bench.run(task).outcomes[0].frame for _ in range(2))
    assert first.equals(second)


SHARDS = {(f"cell{number // 4}", number % 4): f"defense{number // 16}" for number in range(48)}


def test_shards_are_drawn_uniformly_by_the_seed_alone() -> None:
    """Of 48, twelve in each of 400 draws: every one about as often, and another seed others."""
    share = Fraction(1, 4)
    draws = [draw(SHARDS, Sampling(share, seed), 48)[0] for seed in range(400)]
    counts = collections.Counter(shard for drawn in draws for shard in drawn)
    assert all(len(set(drawn)) == 12 for drawn in draws)
    # Chi-square with 47 degrees of freedom, of draws without replacement: 47 on average.
    expected = 400 / 4
    statistic = sum((counts[shard] - expected) ** 2 for shard in SHARDS) / (expected * 3 / 4)
    assert 20 < statistic < 47 + 5 * (2 * 47) ** 0.5
    assert draws[0] == draw(dict(reversed(SHARDS.items())), Sampling(share, 0), 48)[0]
    assert len({frozenset(drawn) for drawn in draws}) == 400


@pytest.mark.parametrize("share", ["1/100000", "0.02", "0.5", "all"])
def test_every_defense_gets_a_shard(share: str) -> None:
    """Beyond those that are drawn, as many of which as the share says, rounded up."""
    sampling = Sampling.parse(share, 3)
    drawn, further = draw(SHARDS, sampling, 48)
    assert len(drawn) == {"1/100000": 1, "0.02": 1, "0.5": 24, "all": 48}[share]
    assert not set(drawn) & set(further)
    met = collections.Counter(SHARDS[shard] for shard in (*drawn, *further))
    assert met.keys() == {"defense0", "defense1", "defense2"}
    assert all(met[SHARDS[shard]] == 1 for shard in further)
    assert draw(SHARDS, Sampling(Fraction(0), 3), 48) == ([], [])


def test_a_fresh_seed_is_drawn_each_time_and_the_same_one_does_the_same_again(
    finished: Path, again: Callable[..., Recomputed]
) -> None:
    """Nobody who made the run can know it; who has it gets the same shards."""
    assert Sampling.parse("all").seed != Sampling.parse("all").seed
    first, second = (dataclasses.replace(again(finished, "0.1", 11), seconds=0) for _ in range(2))
    assert first == second
    assert "--recompute-seed 11" in first.text
    assert 0 < first.drawn < first.stored


@pytest.mark.parametrize("share", ["", "2%", "-0.1", "1.1", "nan", "inf", "1/0", "ALL", "5"])
def test_what_is_no_share_is_refused(share: str) -> None:
    """In one line, with what is allowed."""
    with pytest.raises(UsageError, match=r"--recompute has to be a fraction .* or all, or 0"):
        Sampling.parse(share)


@pytest.mark.parametrize(("seed", "workers"), [(-1, 1), (0, 0)])
def test_what_is_no_seed_and_no_worker_is_refused(seed: int, workers: int) -> None:
    """By the option's name."""
    with pytest.raises(UsageError, match="has to be from"):
        Sampling(Fraction(1), seed, workers)


def test_a_cell_that_cannot_be_computed_again_is_named_and_counted(
    finished: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an attack in another version: a forger may have chosen it, and so it counts as missed."""
    monkeypatch.setattr(registry.attacks.get("test-random"), "version", 99)
    found = again(finished)
    names = {item.cell for item in found.left_out}
    assert names == {f"model × test-random @ {epsilon}" for epsilon in EPSILONS}
    assert all("another version of its attack" in item.reason for item in found.left_out)
    assert found.unproven == 12
    assert found.drawn == found.stored - 12
    assert found.found == 1 + 12
    assert not found.whole


def test_an_attack_that_is_not_here_is_named(
    forged: Path, again: Callable[..., Recomputed]
) -> None:
    """With what the registry says."""
    store, record = open_run(forged)
    cells = [
        cell.model_copy(update={"attack": cell.attack.replace("test-best", "gone")})
        for cell in record.cells
    ]
    for cell in record.cells:
        for number, outcomes in enumerate(store.shards(cell.key)):
            assert outcomes.place is not None
            if outcomes.place.attack == "test-best":
                outcomes.place = outcomes.place._replace(attack="gone")
                store.put(cell.key, number, outcomes)
    store.write_record(record.model_copy(update={"cells": cells}))
    left = again(forged).left_out
    assert {item.cell for item in left} == {f"model × gone @ {e}" for e in EPSILONS}
    assert all("its attack is not here: unknown attack 'gone'" in item.reason for item in left)


def test_what_was_computed_elsewhere_agrees_within_margins(
    finished: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same processor, called otherwise: what is equal to the last digit counts as equal."""
    elsewhere(monkeypatch)
    found = again(finished)
    assert found.differences == ()
    assert found.whole


def elsewhere(patch: pytest.MonkeyPatch) -> None:
    """This machine is another than that of the run."""
    here = Surroundings.of("cpu").model_copy(update={"device_name": "another"})
    patch.setattr("bench.run.recompute.Surroundings.of", lambda *_: here)


def moved(folder: Path, attack: str, change: Callable[[Any, int], None]) -> None:
    """Change every broken outcome of an attack; gets the frame and the row."""
    store, record = open_run(folder)
    for cell in [cell for cell in record.cells if cell.attack == attack]:
        for number, outcomes in enumerate(store.shards(cell.key)):
            attacked = attack == CLEAN or outcomes.frame["attacked"] & outcomes.frame["broken"]
            for row in np.flatnonzero(np.broadcast_to(attacked, len(outcomes.frame))):
                change(outcomes.frame, int(row))
            outcomes.save(store.shard_path(cell.key, number))


def test_rounding_is_no_fault_elsewhere_and_one_direction_is(
    forged: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances in the last digits; then broken examples that are all unbroken as stored."""
    elsewhere(monkeypatch)

    def rounded(frame: Any, row: int) -> None:
        frame.loc[row, ["distance_linf", "margin"]] *= 1 + 1e-6

    def better(frame: Any, row: int) -> None:
        frame.loc[row, "broken"] = False

    moved(forged, "test-minimum", rounded)
    found = again(forged)
    assert found.differences == ()
    assert found.exact < found.computed
    assert "within margins and chance" in found.text
    moved(forged, "test-minimum", better)
    (difference,) = again(forged).differences
    assert difference.startswith("model × test-minimum: broken is higher than computed again 0")


def test_predictions_of_a_deterministic_model_are_the_same_everywhere(
    forged: Path, again: Callable[..., Recomputed], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One unperturbed example whose margin is another."""
    elsewhere(monkeypatch)
    moved(forged, CLEAN, lambda frame, row: frame.__setitem__("margin", frame["margin"] + 0.01))
    assert any("model × clean @ 0" in text for text in again(forged).differences)


def test_randomness_that_no_seed_reaches_is_no_forgery(
    tmp_path: Path, again: Callable[..., Recomputed]
) -> None:
    """An honest run of such a model agrees by its draws, and the text says how it was compared."""
    folder = evaluated(tmp_path, OwnNoise(), attacks="test-best", epsilons=["0.02"])
    found = again(folder, model="OwnNoise")
    assert found.differences == ()
    assert found.unsteady == found.computed == found.stored
    assert "do not come out the same twice" in found.text
    assert not found.whole


def test_randomness_of_the_run_s_generators_comes_out_the_same(
    tmp_path: Path, again: Callable[..., Recomputed]
) -> None:
    """Every draw of every example, of a model that draws from the generators that a run seeds."""
    assert again(evaluated(tmp_path, Noise(), attacks="test-best"), model="Noise").whole


def test_a_file_from_elsewhere_is_not_here(
    tmp_path: Path, again: Callable[..., Recomputed], factories: Path
) -> None:
    """The adversarial examples that somebody else made: named, and never said to be equal."""
    np.savez(tmp_path / "far.npz", adversarial=shifted(torch.full((N,), 0.2)))
    result = judged(tmp_path / "far.npz", tmp_path / "runs")
    assert result.folder is not None
    found = again(result.folder)
    assert {item.cell.partition(" @ ")[0] for item in found.left_out} == {"model × external:mine"}
    assert all("its file is not here" in item.reason for item in found.left_out)
    assert found.differences == ()
