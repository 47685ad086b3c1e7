"""Training: a seed fixes the weights, however often it was interrupted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Defense, Examples, Recipe, Schedule
from bench.data import Dataset, Split
from bench.errors import CheckpointError, DataError, ModelError, UsageError
from bench.record.checkpoints import load_weights, read_record
from bench.train import Progress, Trained, train
from bench.train.augment import crop_and_flip


class Stripes(Dataset):
    """Two classes of 4x4 images: bright above, or bright below."""

    name = "stripes"

    def __init__(self, family: str | None = "digits", splits: tuple[str, ...] = ("train", "test")):
        self._family = family
        self.splits = splits

    @property
    def family(self) -> str | None:
        """Any family will do."""
        return self._family

    def load(self, split: Split) -> Examples:
        """90 noisy images, the same for both splits."""
        if split not in self.splits:
            raise DataError(f"stripes has no {split} split")
        inputs = torch.rand(90, 1, 4, 4, generator=Generator().manual_seed(0)) / 2
        labels = torch.arange(90) % 2
        inputs[labels == 0, :, :2] += 0.4
        inputs[labels == 1, :, 2:] += 0.4
        return Examples.of(inputs, labels, ["above", "below"], self.name)


class Noisy(Recipe):
    """Cross-entropy on inputs with noise; can be made to fail at a batch."""

    name = "noisy"

    def __init__(self, schedule: Schedule, stop: BaseException | None, at: int) -> None:
        self.schedule = schedule
        self.stop = stop
        self.at = at
        self.batches = 0

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy."""
        self.batches += 1
        if self.stop and self.batches == self.at:
            raise self.stop
        return cross_entropy(
            model(inputs + 0.1 * torch.rand(inputs.shape, generator=generator)), labels
        )


class Toy(Defense):
    """A network with batch normalisation, and dropout that draws from the global generator."""

    summary = "for tests"
    name = "toy"

    def __init__(self, stop: BaseException | None = None, at: int = 0, **schedule: Any) -> None:
        settings = {"epochs": 4, "batch_size": 32, "learning_rate": 0.1, "milestones": (3,)}
        self.noisy = Noisy(Schedule(**{**settings, **schedule}), stop, at)

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """A name for it."""
        return "toy"

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Two layers."""
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(16, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(8, classes),
        )

    def recipe(self, family: str) -> Recipe | None:
        """Noisy training."""
        return self.noisy


class UntrainableToy(Toy):
    """A defense without a recipe."""

    def recipe(self, family: str) -> Recipe | None:
        """None."""
        return None


def digest(trained: Trained) -> str:
    """Of the weights."""
    return trained.record.weights_digest


def test_the_seed_fixes_the_weights(tmp_path: Path) -> None:
    """The same seed gives the same weights whatever the global state; another seed others."""
    first = train(Toy(), Stripes(), out=tmp_path / "a")
    torch.rand(3)
    second = train(Toy(), Stripes(), out=tmp_path / "b")
    other = train(Toy(), Stripes(), out=tmp_path / "c", seed=1)

    assert digest(first) == digest(second)
    assert digest(first) != digest(other)


@pytest.mark.parametrize("batch", [1, 4, 5, 12])
def test_interrupted_and_resumed_ends_in_the_same_weights(tmp_path: Path, batch: int) -> None:
    """Stopped in any epoch (three batches each), the training goes on with the epoch it was in."""
    whole = train(Toy(), Stripes(), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=batch), Stripes(), out=tmp_path / "cut")
    resumed = Toy()

    again = train(resumed, Stripes(), out=tmp_path / "cut")

    assert digest(again) == digest(whole)
    assert resumed.noisy.batches == 12 - 3 * ((batch - 1) // 3)
    assert sorted(file.suffix for file in (tmp_path / "cut").iterdir()) == [".json", ".safetensors"]


def test_fresh_forgets_the_state(tmp_path: Path) -> None:
    """With `fresh` all epochs are done again."""
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=8), Stripes(), out=tmp_path)
    again = Toy()

    train(again, Stripes(), out=tmp_path, fresh=True)

    assert again.noisy.batches == 12


@pytest.mark.parametrize("change", ["seed", "recipe"])
def test_a_state_of_another_training_is_not_continued(tmp_path: Path, change: str) -> None:
    """Another seed or another setting starts from the first epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=8), Stripes(), out=tmp_path)
    other = Toy(learning_rate=0.2) if change == "recipe" else Toy()

    train(other, Stripes(), out=tmp_path, seed=1 if change == "seed" else 0)

    assert other.noisy.batches == 12


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    """The error names the file and what to do."""
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=8), Stripes(), out=tmp_path)
    (state,) = tmp_path.glob(".*.training")
    state.write_bytes(b"damaged")

    with pytest.raises(CheckpointError, match=r"\.training is not the state .* use --fresh"):
        train(Toy(), Stripes(), out=tmp_path)


def test_checkpoint_and_record_are_written(tmp_path: Path) -> None:
    """The weights load, and the record says what was trained, how, and how well."""
    trained = train(Toy(), Stripes(), out=tmp_path, command="the command", seed=2)
    record = read_record(trained.path)
    model = Toy().build(network="toy", shape=(1, 4, 4), classes=2).eval()
    load_weights(trained.path, model)
    test = Stripes().load("test")

    assert record == trained.record
    assert record is not None
    assert (record.defense, record.network, record.dataset) == ("toy", "toy", "stripes")
    assert (record.seed, record.epochs, record.command) == (2, 4, "the command")
    assert record.train_digest == test.digest
    assert record.recipe["learning_rate"] == 0.1
    assert record.clean_accuracy == (model(test.inputs).argmax(1) == test.labels).float().mean()
    assert record.clean_accuracy > 0.9


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    """The same call returns what is there; other settings are refused unless `fresh`."""
    first = train(Toy(), Stripes(), out=tmp_path)
    idle = Toy()

    again = train(idle, Stripes(), out=tmp_path)
    assert (again.record, again.seconds, idle.noisy.batches) == (first.record, 0, 0)

    with pytest.raises(UsageError, match="there already, from a training with other settings"):
        train(Toy(), Stripes(), out=tmp_path, epochs=2)
    assert digest(train(Toy(), Stripes(), out=tmp_path, epochs=2, fresh=True)) != digest(first)


def test_epochs_move_the_milestones(tmp_path: Path) -> None:
    """Half the epochs, and the learning rate falls at half the time."""
    trained = train(Toy(epochs=8, milestones=(4, 6)), Stripes(), out=tmp_path, epochs=4)

    assert trained.record.recipe["epochs"] == trained.record.epochs == 4
    assert trained.record.recipe["milestones"] == [2, 3]


def test_learning_rate_falls_at_the_milestone(tmp_path: Path) -> None:
    """With a factor of 0 nothing is learned after it: two epochs more change nothing."""
    settings: dict[str, Any] = {"factor": 0.0, "momentum": 0.0, "milestones": (2,)}
    weights = []
    for epochs in (2, 4):
        trained = train(Toy(epochs=epochs, **settings), Stripes(), out=tmp_path / str(epochs))
        model = Toy().build(network="toy", shape=(1, 4, 4), classes=2)
        load_weights(trained.path, model)
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))

    assert torch.equal(weights[0], weights[1])


def test_global_random_numbers_and_threads_are_put_back(tmp_path: Path) -> None:
    """A caller's own generator goes on as if nothing had been trained."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    train(Toy(), Stripes(), out=tmp_path)

    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_num_threads() == threads


def test_progress_is_reported_for_each_epoch(tmp_path: Path) -> None:
    """The last report has all epochs done and the accuracy on training examples."""
    reports: list[Progress] = []

    train(Toy(), Stripes(), out=tmp_path, on_progress=reports.append)

    assert {report.epoch for report in reports} == {1, 2, 3, 4}
    assert [report.done for report in reports] == sorted(report.done for report in reports)
    assert reports[-1].done == reports[-1].epochs == 4
    assert reports[-1].accuracy is not None
    assert reports[-1].accuracy > 0.9


@pytest.mark.parametrize("cause", ["learning rate", "k-WTA"])
def test_a_diverged_training_is_told(tmp_path: Path, cause: str) -> None:
    """NaN in the loss or inside k-WTA ends the training; no checkpoint is written."""
    if cause == "learning rate":
        toy = Toy(learning_rate=1e38)
    else:
        toy = Toy(ModelError("k-WTA got NaN"), at=2)

    with pytest.raises(UsageError, match=r"training diverged in epoch 1: .*(nan|NaN)"):
        train(toy, Stripes(), out=tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("defense", "dataset", "epochs", "message"),
    [
        (UntrainableToy(), Stripes(), None, "cannot train toy: it has no recipe"),
        (Toy(), Stripes(family=None), None, "no training settings for images"),
        (Toy(), Stripes(), 0, r"--epochs has to be at least 1 \(got 0\)"),
        (Toy(), Stripes(splits=("train",)), None, "no test split"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    tmp_path: Path, defense: Defense, dataset: Dataset, epochs: int | None, message: str
) -> None:
    """Before anything is computed or written."""
    with pytest.raises(UsageError, match=message):
        train(defense, dataset, out=tmp_path, epochs=epochs)

    assert list(tmp_path.iterdir()) == []


def test_augmentation_is_a_crop_of_the_padded_image_or_of_its_mirror() -> None:
    """Each output is one of the 2 × 81 that can be cut from the padded image by hand."""
    inputs = torch.rand(40, 2, 6, 5, generator=Generator().manual_seed(0))

    moved = crop_and_flip(inputs, Generator().manual_seed(1))

    offsets = set()
    for image, result in zip(inputs, moved, strict=True):
        padded = torch.zeros(2, 14, 13)
        padded[:, 4:10, 4:9] = image
        offsets |= {
            (top, left, mirrored)
            for top in range(9)
            for left in range(9)
            for mirrored in (False, True)
            for cut in [padded[:, top : top + 6, left : left + 5]]
            if torch.equal(cut.flip(2) if mirrored else cut, result)
        }
        assert offsets
    assert len({top for top, _, _ in offsets}) > 4
    assert len({left for _, left, _ in offsets}) > 4
    assert {mirrored for _, _, mirrored in offsets} == {False, True}
