"""Gamma annealing: how gamma falls, and that a training goes on from a start."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bench import registry
from bench.defenses.activations import KWTA
from bench.defenses.networks import build_network
from bench.defenses.recipes import GammaAnnealing, Natural, PGDAdversarialTraining
from bench.errors import CheckpointError, UsageError
from bench.models.checkpoints import read_record
from bench.train import TrainConfig, Trained, train
from tests.train.toys import FewDigits, digest, interrupt_in


def annealing(family: str, gamma: float, epochs: int | None = None) -> GammaAnnealing:
    """To this gamma, naturally trained."""
    recipe = GammaAnnealing(family, gamma=gamma, base=Natural(family), start="kwta")
    if epochs is not None:
        recipe.schedule = recipe.schedule.with_epochs(epochs)
    return recipe


def anneal(out: Path, seed: int = 0, epochs: int = 4) -> Trained:
    """Train k-WTA to gamma 0.1 on a few digits."""
    defense = registry.defenses.create("kwta-annealed[gamma=0.1]")
    return train(defense, FewDigits(), TrainConfig(seed=seed, epochs=epochs), out=out)


def start(out: Path, seed: int = 0) -> Trained:
    """Train what annealing on digits starts from."""
    defense = registry.defenses.create("kwta[gamma=0.2]")
    return train(defense, FewDigits(), TrainConfig(seed=seed, epochs=2), out=out)


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the start's checkpoints of two seeds; not to be written to."""
    folder = tmp_path_factory.mktemp("started")
    start(folder)
    start(folder, seed=1)
    return folder


@pytest.fixture
def out(tmp_path: Path, started: Path) -> Path:
    """A folder of its own with the start's checkpoints."""
    for path in started.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("family", "first", "step", "every", "epochs"),
    [
        ("cifar10", 0.2, 0.005, 2, 70),
        ("svhn", 0.2, 0.005, 2, 70),
        ("mnist", 0.1, 0.001, 1, 99),
        ("digits", 0.2, 0.005, 1, 39),
    ],
)
def test_gamma_falls_as_in_the_papers_code(
    family: str, first: float, step: float, every: int, epochs: int
) -> None:
    """At the start of each such epoch, the very first one included, down to the target."""
    recipe = annealing(family, 0.08)
    gamma, expected = first, []
    for epoch in range(epochs):
        if epoch % every == 0:
            gamma = max(0.08, gamma - step)
        expected.append(gamma)

    assert recipe.schedule.epochs == epochs
    assert [recipe.gamma_at(epoch) for epoch in range(epochs)] == pytest.approx(expected)


def test_cifar10_begins_below_the_start_and_reaches_the_papers_gamma_by_epoch_46() -> None:
    """0.195 at first; 24 falls of 0.005, two epochs apart, lead from 0.2 to 0.08."""
    recipe = annealing("cifar10", 0.08)

    assert [recipe.gamma_at(epoch) for epoch in (0, 1, 2)] == [0.195, 0.195, 0.19]
    assert [recipe.gamma_at(epoch) for epoch in (45, 46, 69)] == [0.085, 0.08, 0.08]
    assert recipe.schedule.learning_rate == 0.001


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 39, 70, 200])
@pytest.mark.parametrize(
    ("family", "gamma"), [("cifar10", 0.08), ("cifar10", 0.001), ("mnist", 0.05)]
)
def test_gamma_never_rises_and_ends_at_the_target(family: str, gamma: float, epochs: int) -> None:
    """With any number of epochs."""
    recipe = annealing(family, gamma, epochs)
    gammas = [recipe.gamma_at(epoch) for epoch in range(epochs)]

    assert gammas == sorted(gammas, reverse=True)
    assert gammas[-1] == gamma
    assert gammas[0] < {"cifar10": 0.2, "mnist": 0.1}[family]


@pytest.mark.parametrize("gamma", [0.1, 0.2, 0.0])
def test_a_target_that_is_not_below_the_start_is_refused(gamma: float) -> None:
    """The error names the first gamma of the family."""
    with pytest.raises(UsageError, match=r"on mnist starts at gamma 0\.1.*\(got 0"):
        annealing("mnist", gamma)


def test_an_epoch_sets_gamma_in_every_activation() -> None:
    """Eight places of a ResNet; of its own attack it takes over all that the base has."""
    recipe = annealing("cifar10", 0.08)
    with torch.device("meta"):
        model = build_network("resnet10w16", (3, 32, 32), 10, KWTA)

    recipe.begin_epoch(model, 10)

    gammas = [module.gamma for module in model.modules() if isinstance(module, KWTA)]
    assert gammas == [0.17] * 8


def test_the_record_names_both_recipes() -> None:
    """Every setting of annealing, and those of the attack of its base."""
    base = PGDAdversarialTraining("cifar10")
    described = GammaAnnealing("cifar10", gamma=0.08, base=base, start="kwta-at").describe()

    assert (described["recipe"], described["loss"]) == ("gamma-annealing", "pgd-at")
    assert (described["epochs"], described["learning_rate"]) == (70, 0.001)
    assert (described["epsilon"], described["steps"]) == (0.031, 10)
    assert (described["first_gamma"], described["last_gamma"]) == (0.2, 0.08)
    assert described["start"] == "kwta-at"


def test_annealing_begins_with_the_weights_of_the_start(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is learned they are what it ends with; its record says which they were."""
    defense = registry.defenses.create("kwta-annealed[gamma=0.1]")
    recipe = defense.recipe("digits")
    assert recipe is not None
    recipe.schedule = replace(recipe.schedule, learning_rate=0.0)
    monkeypatch.setattr(defense, "recipe", lambda family: recipe)

    annealed = train(defense, FewDigits(), TrainConfig(epochs=1), out=out)

    assert digest(annealed) == digest(start(out))
    assert annealed.record.recipe["start_weights"] == digest(annealed)


def test_the_start_of_the_same_seed_is_taken(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the checkpoint to be; otherwise the first seed among the user's own."""
    user = tmp_path / "results" / "checkpoints"
    user.mkdir(parents=True)
    for path in out.glob("kwta-gamma*"):
        (user / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    first, second = digest(start(out)), digest(start(out, seed=1))

    assert first != second
    assert anneal(out, seed=1).record.recipe["start_weights"] == second
    assert anneal(tmp_path / "elsewhere", seed=2).record.recipe["start_weights"] == first


def test_interrupted_annealing_ends_in_the_same_weights(out: Path, tmp_path: Path) -> None:
    """The gamma of an epoch follows from its number."""
    whole = anneal(out)
    for path in (whole.path, whole.path.with_suffix(".json")):
        path.unlink()
    defense = registry.defenses.create("kwta-annealed[gamma=0.1]")
    with pytest.raises(KeyboardInterrupt):
        train(defense, FewDigits(), TrainConfig(epochs=4), out=out, on_progress=interrupt_in(3))
    epochs: list[int] = []

    again = train(
        defense,
        FewDigits(),
        TrainConfig(epochs=4),
        out=out,
        on_progress=lambda progress: epochs.append(progress.epoch),
    )

    assert set(epochs) == {3, 4}
    assert digest(again) == digest(whole)


def test_a_missing_start_is_told_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command names the start and the data; nothing is written."""
    monkeypatch.chdir(tmp_path)
    command = r"python -m bench train --defense 'kwta\[gamma=0\.2\]' --dataset few-digits"

    with pytest.raises(CheckpointError, match=command):
        anneal(tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


def test_other_weights_of_the_start_make_another_training(out: Path) -> None:
    """An annealed checkpoint is not taken for one from weights that are gone."""
    first = anneal(out)
    record = read_record(first.path)
    defense = registry.defenses.create("kwta[gamma=0.2]")
    train(defense, FewDigits(), TrainConfig(epochs=3, fresh=True), out=out)

    with pytest.raises(UsageError, match="from a training with other settings"):
        anneal(out)

    assert read_record(first.path) == record
