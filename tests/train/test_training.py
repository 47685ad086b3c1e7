"""Training: a seed fixes the weights, and a checkpoint says what was trained, how, and how well."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy

from bench.api import Defense, Recipe, Schedule
from bench.data import Dataset
from bench.defenses.activations import LWTA
from bench.errors import ModelError, UsageError
from bench.models.checkpoints import load_weights, read_record
from bench.train import Progress, TrainConfig, train
from bench.train.fit import crop_and_flip
from tests.train.toys import Noisy, Stripes, Toy, digest


class Replayed(Noisy):
    """Uses each batch three times, and notes the last layer's bias before every step."""

    biases: list[Tensor]
    gradients: list[Tensor]

    def losses(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Iterator[Tensor]:
        """The cross-entropy, three times."""
        bias = model.get_parameter("5.bias")
        for _ in range(3):
            self.biases.append(bias.detach().clone())
            yield cross_entropy(model(inputs), labels)
            assert bias.grad is not None
            self.gradients.append(bias.grad.clone())


class UnfitToy(Toy):
    """A network whose activation cannot take its own layers."""

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """16 units in groups of 3."""
        return nn.Sequential(nn.Flatten(), LWTA(3), nn.Linear(16, classes))


class UntrainableToy(Toy):
    """A defense without a recipe."""

    def recipe(self, family: str) -> Recipe | None:
        """None."""
        return None


def test_the_seed_fixes_the_weights(tmp_path: Path) -> None:
    """The same seed gives the same weights whatever the global state; another seed others."""
    first = train(Toy(), Stripes(), out=tmp_path / "a")
    torch.rand(3)
    second = train(Toy(), Stripes(), out=tmp_path / "b")
    other = train(Toy(), Stripes(), TrainConfig(seed=1), out=tmp_path / "c")

    assert digest(first) == digest(second)
    assert digest(first) != digest(other)


def test_checkpoint_and_record_are_written(tmp_path: Path) -> None:
    """The weights load, and the record says what was trained, how, and how well."""
    trained = train(Toy(), Stripes(), TrainConfig(command="the command", seed=2), out=tmp_path)
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
        train(Toy(), Stripes(), TrainConfig(epochs=2), out=tmp_path)
    assert digest(
        train(Toy(), Stripes(), TrainConfig(epochs=2, fresh=True), out=tmp_path)
    ) != digest(first)


def test_epochs_move_the_milestones(tmp_path: Path) -> None:
    """Half the epochs, and the learning rate falls at half the time."""
    trained = train(
        Toy(epochs=8, milestones=(4, 6)), Stripes(), TrainConfig(epochs=4), out=tmp_path
    )

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


def test_each_loss_is_followed_by_a_step_of_descent(tmp_path: Path) -> None:
    """Without momentum a step is minus rate times gradient; three for each of the six batches."""
    toy = Toy()
    recipe = Replayed(Schedule(2, 32, 0.1, milestones=(1,), momentum=0.0), None, 0)
    recipe.biases, recipe.gradients = [], []
    toy.noisy = recipe

    train(toy, Stripes(), out=tmp_path)

    final = toy.built.get_parameter("5.bias").detach()
    after = [*recipe.biases[1:], final]
    rates = [0.1] * 9 + [0.01] * 9
    for before, gradient, now, rate in zip(
        recipe.biases, recipe.gradients, after, rates, strict=True
    ):
        torch.testing.assert_close(now, before - rate * gradient)


def test_the_rate_changes_with_every_batch(tmp_path: Path) -> None:
    """The curve notes the last of an epoch's three: that after (epoch + 2/3) epochs."""
    trained = train(Toy(cyclic=True), Stripes(), out=tmp_path)
    done = [epoch + 2 / 3 for epoch in range(4)]

    assert [epoch.learning_rate for epoch in trained.curve] == pytest.approx(
        [0.1 * min(part / 1.6, (4 - part) / 2.4) for part in done]
    )


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


def test_a_model_that_does_not_fit_has_not_diverged(tmp_path: Path) -> None:
    """What it says of itself stands, not that another seed might help."""
    with pytest.raises(ModelError, match="16 channels do not make whole groups of 3"):
        train(UnfitToy(), Stripes(), out=tmp_path)


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
        train(defense, dataset, TrainConfig(epochs=epochs), out=tmp_path)

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
