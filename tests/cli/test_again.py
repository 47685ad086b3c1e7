"""A finished command asked again is answered from its files, where nothing changed."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.registry.plugins import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = ("run", "--defense", "relu", "--attacks", "fgsm", "--n", "6", "--eps", "0.1",
           "--no-examine", "--workers", "0")  # fmt: skip


class AskedError(Exception):
    """The run was asked."""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run's folder of runs, and what its command printed."""
    out = tmp_path_factory.mktemp("runs of digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "foreign", lambda _: False)  # whatever other tests registered
        done = CliRunner().invoke(app, [*COMMAND, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out, done.stdout


@pytest.fixture
def again(first: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str | None]:
    """What the command prints again; None where it asks the run."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AskedError

    monkeypatch.setattr(Registry, "foreign", lambda _: False)
    monkeypatch.setattr(importlib.import_module("bench.cli.run"), "_execute", refuse)

    def asked(*further: str) -> str | None:
        done = CliRunner().invoke(app, [*COMMAND, "--out", str(first[0]), *further])
        if isinstance(done.exception, AskedError):
            return None
        assert done.exit_code == 0, done.output
        return done.stdout

    return asked


def test_the_same_answer_is_read_from_the_files(
    first: tuple[Path, str], again: Callable[..., str | None]
) -> None:
    """Byte for byte, without a model."""
    assert again() == first[1]


@pytest.mark.parametrize("further", [("--seed", "1"), ("--norm", "L2"), ("--fresh",)])
def test_another_question_is_asked(
    further: tuple[str, ...], again: Callable[..., str | None]
) -> None:
    """Another seed or attack, and where it is to be computed anew."""
    assert again(*further) is None


def test_another_environment_is_asked(
    again: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What torch reads may change an answer."""
    monkeypatch.setenv("TORCH_SOMETHING", "1")
    assert again() is None


def test_a_run_whose_files_changed_is_asked(
    first: tuple[Path, str], again: Callable[..., str | None]
) -> None:
    """One byte of an outcome's file."""
    (path, *_) = sorted(first[0].glob("*/cells/*/*.parquet"))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        assert again() is None
    finally:
        path.write_bytes(content)


def test_reading_an_answer_imports_neither_torch_nor_scikit_learn(tmp_path: Path) -> None:
    """Which would take most of its time; the run before it does."""
    code = (
        "import sys\nfrom bench.cli import app\n"
        f"app({[*COMMAND, '--out', str(tmp_path)]!r}, standalone_mode=False)\n"
        "print({'torch', 'sklearn'} & set(sys.modules), file=sys.stderr)\n"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
        )
        for _ in "ab"
    )
    assert second.stdout == first.stdout
    assert first.stderr.strip().endswith("{'torch'}")
    assert second.stderr.strip().endswith("set()")


def test_worst_case_and_verdict_are_the_last_lines(first: tuple[Path, str]) -> None:
    """After the tables and where they lie: the figure, what it is worth, and what led to it."""
    worst, lowest = first[1].splitlines()[-2:]

    assert re.fullmatch(
        r"relu: worst case \d+\.\d \(.+\) % at ε = 0\.1, not examined, n = 6", worst
    )
    assert re.fullmatch(r"  lowest row: (fgsm, \d+\.\d %)?.*", lowest)
    label, _, command = first[1].splitlines()[-5].partition(":")
    *words, folder = shlex.split(command)
    assert (label, words) == ("check it", ["python", "-m", "bench", "verify"])
    assert (first[0] / Path(folder).name).samefile(folder)
    assert re.fullmatch(r"passes: relu \d+ \(\d+ s\)", first[1].splitlines()[-4])
