"""Held-out examples: never trained on, and the judges of the best epoch."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from bench import train as training
from bench.models.checkpoints import load_weights, read_record, save_checkpoint
from bench.train import Progress, TrainConfig, Trained, train
from bench.train.fit import held_out
from tests.train.toys import Noisy, Stripes, Toy, digest, interrupt_in

#: Fractions of the validation examples that `Scripted` leaves alone, epoch by epoch.
SCRIPT = (0.2, 0.8, 0.8, 0.6)


class Scripted(Noisy):
    """Notes what it trains on; its attack turns as many images upside down as the script says."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.seen: set[bytes] = set()
        self.epoch = 0

    def loss(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The mean cross-entropy."""
        self.seen |= {image.numpy().tobytes() for image in inputs}
        return super().loss(model, inputs, labels, generator)

    def begin_epoch(self, model: nn.Module, epoch: int) -> None:
        """Remember the epoch."""
        self.epoch = epoch

    def attack(
        self, model: nn.Module, inputs: Tensor, labels: Tensor, generator: Generator
    ) -> Tensor:
        """The first images as they are, the others as if of the other class."""
        kept = round(SCRIPT[self.epoch] * len(inputs))
        return torch.cat([inputs[:kept], inputs[kept:].flip(2)])


class Judged(Toy):
    """15 of 90 examples are held out; easy enough that the script alone decides the scores."""

    def __init__(self) -> None:
        super().__init__(validation=15, batch_size=8)
        self.scripted = Scripted(self.schedule, None, 0)
        self.noisy = self.scripted


def seen(seed: int, out: Path) -> set[bytes]:
    """What a training with this seed trains on, an entry for each different image."""
    defense = Judged()
    train(defense, Stripes(), TrainConfig(seed=seed), out=out)
    return defense.scripted.seen


def timeless(trained: Trained) -> list[dict[str, Any]]:
    """The curve, but for the seconds."""
    return [{**dataclasses.asdict(epoch), "seconds": 0} for epoch in trained.curve]


def test_held_out_examples_are_never_trained_on_whatever_the_seed(tmp_path: Path) -> None:
    """Two seeds train on the same 75 of 90 images, and the other 15 are those held out."""
    images = {image.numpy().tobytes() for image in Stripes().load("train").inputs}
    _, validation = held_out(Stripes().load("train"), 15)
    assert validation is not None
    apart = {image.numpy().tobytes() for image in validation.inputs}

    first, second = seen(0, tmp_path), seen(1, tmp_path)

    assert len(first) == 75
    assert first == second == images - apart


def test_the_best_epoch_is_the_first_with_the_highest_score(tmp_path: Path) -> None:
    """Its weights, as they were then, lie under best/ with their record; the last stay the last."""
    defense = Judged()
    weights: dict[float, dict[str, Tensor]] = {}

    def note(progress: Progress) -> None:
        state = defense.built.state_dict()
        weights[progress.done] = {name: tensor.clone() for name, tensor in state.items()}

    trained = train(defense, Stripes(), out=tmp_path, on_progress=note)
    model = Toy().build(network="toy", shape=(1, 4, 4), classes=2).eval()

    assert [epoch.validation_robust_accuracy for epoch in trained.curve] == pytest.approx(SCRIPT)
    assert trained.best == tmp_path / "best" / trained.path.name
    for path, epoch in ((trained.best, 2), (trained.path, 4)):
        load_weights(path, model)  # refuses weights whose digest is not the record's
        record, test = read_record(path), Stripes().load("test")
        right = model(test.inputs).argmax(dim=1) == test.labels

        assert record is not None
        assert record.epochs == epoch
        assert record.clean_accuracy == right.double().mean().item()
        assert all(
            torch.equal(tensor, weights[epoch][name]) for name, tensor in model.state_dict().items()
        )
    assert read_record(trained.path) == trained.record


def test_without_an_attack_the_clean_accuracy_decides(tmp_path: Path) -> None:
    """Measured on the held-out examples: the first epoch with the most of them right."""
    trained = train(Toy(validation=15, learning_rate=0.02), Stripes(), out=tmp_path)
    clean = [epoch.validation_accuracy or 0.0 for epoch in trained.curve]
    assert trained.best is not None
    record = read_record(trained.best)

    assert {epoch.validation_robust_accuracy for epoch in trained.curve} == {None}
    assert max(clean) > clean[0]
    assert record is not None
    assert record.epochs == clean.index(max(clean)) + 1


def test_without_validation_there_is_no_best(tmp_path: Path) -> None:
    """Nothing is measured, nothing chosen."""
    trained = train(Toy(), Stripes(), out=tmp_path)

    assert trained.best is None
    assert {epoch.score for epoch in trained.curve} == {None}
    assert not (tmp_path / "best").exists()


@pytest.mark.parametrize("epoch", [2, 3, 4])
def test_interrupted_and_resumed_finds_the_same_best(tmp_path: Path, epoch: int) -> None:
    """Also where the best epoch lies before the interruption."""
    whole = train(Judged(), Stripes(), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Judged(), Stripes(), out=tmp_path / "cut", on_progress=interrupt_in(epoch))

    again = train(Judged(), Stripes(), out=tmp_path / "cut")

    assert whole.best is not None
    assert again.best is not None
    assert digest(again) == digest(whole)
    assert read_record(again.best) == read_record(whole.best)
    assert again.best.read_bytes() == whole.best.read_bytes()
    assert timeless(again) == timeless(whole)


@pytest.mark.parametrize("saved", [0, 1])
def test_interrupted_between_the_checkpoints_both_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saved: int
) -> None:
    """Whichever is written first, a training without the other is not taken for finished."""
    whole = train(Judged(), Stripes(), out=tmp_path / "whole")
    written: list[Path] = []

    def interrupted(path: Path, *arguments: Any) -> None:
        if len(written) == saved:
            raise KeyboardInterrupt
        written.append(path)
        save_checkpoint(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training, "save_checkpoint", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(Judged(), Stripes(), out=tmp_path / "cut")
    again = train(Judged(), Stripes(), out=tmp_path / "cut")

    assert whole.best is not None
    assert again.best is not None
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert again.best.read_bytes() == whole.best.read_bytes()


@pytest.mark.parametrize(("asked", "held"), [(15, 15), (50, 18)])
def test_what_was_held_out_is_recorded(tmp_path: Path, asked: int, held: int) -> None:
    """Of 90 examples at most a fifth, whatever the schedule asks for."""
    record = train(Toy(validation=asked, epochs=1), Stripes(), out=tmp_path).record
    assert record.recipe["validation"] == held
