"""Interrupted trainings: they go on where they stopped and end in the same weights."""

import csv
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from bench import registry
from bench.data import open_dataset
from bench.errors import CheckpointError
from bench.train import TrainConfig, train
from bench.train.fit import memory_format
from tests.commands import start
from tests.train.toys import Stripes, Toy, digest, interrupt_in


class ConvolutionalToy(Toy):
    """Two convolutions with batch normalisation, for larger images."""

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """Strided, so that they are fast."""
        self.built = nn.Sequential(
            nn.Conv2d(shape[0], 4, 3, stride=2, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, stride=2, padding=1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(4 * (shape[1] // 4) ** 2, classes),
        )
        return self.built


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
    assert again.curve[-1].epoch == len(again.curve) == 4
    assert sorted(file.name for file in (tmp_path / "cut").iterdir()) == [
        "curves",
        again.path.with_suffix(".json").name,
        again.path.name,
    ]


def test_fresh_forgets_the_state(tmp_path: Path) -> None:
    """With `fresh` all epochs are done again."""
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=8), Stripes(), out=tmp_path)
    again = Toy()

    train(again, Stripes(), TrainConfig(fresh=True), out=tmp_path)

    assert again.noisy.batches == 12


@pytest.mark.parametrize("change", ["seed", "recipe"])
def test_a_state_of_another_training_is_not_continued(tmp_path: Path, change: str) -> None:
    """Another seed or another setting starts from the first epoch."""
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=8), Stripes(), out=tmp_path)
    other = Toy(learning_rate=0.2) if change == "recipe" else Toy()

    train(other, Stripes(), TrainConfig(seed=1 if change == "seed" else 0), out=tmp_path)

    assert other.noisy.batches == 12


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    """The error names the file and what to do."""
    with pytest.raises(KeyboardInterrupt):
        train(Toy(KeyboardInterrupt(), at=8), Stripes(), out=tmp_path)
    (state,) = tmp_path.glob(".*.training")
    state.write_bytes(b"damaged")

    with pytest.raises(CheckpointError, match=r"\.training is not the state .* use --fresh"):
        train(Toy(), Stripes(), out=tmp_path)


@pytest.mark.parametrize("epoch", [2, 4])
def test_channels_last_is_resumed_to_the_same_weights(tmp_path: Path, epoch: int) -> None:
    """From 28x28 on images lie channels last on the CPU too, and the state keeps what matters."""
    whole, cut = ConvolutionalToy(), ConvolutionalToy()
    data = Stripes(side=28)
    first = train(whole, data, out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(ConvolutionalToy(), data, out=tmp_path / "cut", on_progress=interrupt_in(epoch))

    again = train(cut, data, out=tmp_path / "cut")

    assert digest(again) == digest(first)
    for toy in (whole, cut):
        weight = toy.built.get_parameter("3.weight")
        assert weight.is_contiguous(memory_format=torch.channels_last)
        assert not weight.is_contiguous()


@pytest.mark.parametrize(
    ("device", "side", "layout"),
    [
        ("cpu", 8, torch.contiguous_format),
        ("cpu", 28, torch.channels_last),
        ("cpu", 32, torch.channels_last),
        ("cuda", 8, torch.channels_last),
        ("cuda:1", 32, torch.channels_last),
    ],
)
def test_only_small_images_on_the_cpu_are_not_channels_last(
    device: str, side: int, layout: torch.memory_format
) -> None:
    """Digits keep the layout that their committed weights were trained in."""
    assert memory_format(device, (1, side, side)) is layout


@pytest.mark.whole
def test_killed_and_started_again_ends_in_the_same_weights_and_curve(tmp_path: Path) -> None:
    """`kill -9` once a state is there; nobody tidies up, and the same command goes on."""
    arguments = ["--dataset", "digits", "--defense", "relu", "--epochs", "12", "--device", "cpu"]
    process = start("train", *arguments, "--out", tmp_path / "cut")
    while not list(tmp_path.glob("cut/.*.training")) and process.is_alive():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("cut/*.safetensors"))
    (state,) = tmp_path.glob("cut/.*.training")
    done = len(torch.load(state, weights_only=True)["curve"])
    assert 1 <= done < 12

    begun: list[int] = []
    relu, digits = registry.defenses.create("relu"), open_dataset("digits")
    again = train(
        relu,
        digits,
        TrainConfig(epochs=12),
        out=tmp_path / "cut",
        on_progress=lambda progress: begun.append(progress.epoch),
    )
    whole = train(relu, digits, TrainConfig(epochs=12), out=tmp_path / "whole")

    assert digest(again) == digest(whole)
    assert begun[0] == done + 1
    curves = []
    for folder in ("cut", "whole"):
        (path,) = tmp_path.glob(f"{folder}/curves/*.csv")
        with path.open(newline="") as file:
            curves.append([{**row, "seconds": ""} for row in csv.DictReader(file)])
    assert curves[0] == curves[1]
    assert len(curves[0]) == 12
