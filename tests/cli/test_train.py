"""`train` on the command line: what it writes and says, and how it survives being killed."""

import os
import signal
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import cli
from bench import train as training
from bench.errors import UnknownNameError, UsageError
from bench.models.checkpoints import read_record
from tests.commands import start


def run(*arguments: str, out: Path) -> tuple[int, str]:
    """Exit code and output of `train`, notes included; errors are raised."""
    result = CliRunner().invoke(
        cli.app,
        [
            "train",
            *(() if "--device" in arguments else ("--device", "cpu")),
            "--out",
            str(out),
            *arguments,
        ],
        catch_exceptions=False,
    )
    return result.exit_code, result.output


def test_trains_several_and_finds_them_made(tmp_path: Path) -> None:
    """One line for each with its accuracy; a second call says that they are there."""
    code, output = run("--defense", "relu,kwta[gamma=0.2]", "--epochs", "1", out=tmp_path)

    assert code == 0
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "kwta-gamma-0.2-cnn-ab3b2dfc.safetensors",
        "relu-cnn-ab3b2dfc.safetensors",
    ]
    record = read_record(tmp_path / "relu-cnn-ab3b2dfc.safetensors")
    assert record is not None
    assert f"clean accuracy {record.clean_accuracy:.4f} on 599 test examples" in output

    code, output = run("--defense", "relu", "--epochs", "1", out=tmp_path)
    assert code == 0
    assert "is there already" in output


@pytest.mark.whole
def test_killed_and_started_again_ends_in_the_same_weights(tmp_path: Path) -> None:
    """`kill -9` between two epochs costs at most one of them, and changes no weight."""
    arguments = ["--defense", "kwta", "--epochs", "8"]
    process = start("train", "--device", "cpu", *arguments, "--out", tmp_path / "cut")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("cut/.*.training")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait().returncode == -signal.SIGKILL
    assert not list(tmp_path.glob("cut/*.json"))

    digests = set()
    for folder in ("cut", "whole"):
        run(*arguments, out=tmp_path / folder)
        record = read_record(tmp_path / folder / "kwta-cnn-ab3b2dfc.safetensors")
        assert record is not None
        digests.add(record.weights_digest)
    assert len(digests) == 1


def test_ctrl_c_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 130 and one line."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)

    code, output = run("--defense", "relu", out=tmp_path)

    assert code == 130
    assert "the same command continues" in output


def test_mistakes_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    """An unknown name at the end of the list, no name at all, and a device that is no device."""
    with pytest.raises(UnknownNameError, match="unknown defense 'kwtaa'; did you mean 'kwta'"):
        run("--defense", "relu,kwtaa", out=tmp_path)
    with pytest.raises(UsageError, match="--defense is empty"):
        run("--defense", ",", out=tmp_path)
    with pytest.raises(UsageError, match="unknown device 'tpu'"):
        run("--defense", "relu", "--device", "tpu", out=tmp_path)

    assert list(tmp_path.iterdir()) == []
