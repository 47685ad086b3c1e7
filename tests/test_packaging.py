from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest

import bench

ROOT = Path(bench.__file__).parent.parent


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    """The project's own description."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def run(*command: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed."""
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=120, check=True
    )  # fmt: skip


def winnow() -> str:
    """The console script of this environment."""
    script = Path(sys.executable).with_name("winnow")
    if not script.exists():
        pytest.fail(f"{script} is missing; install the project: uv pip install -e .")
    return str(script)


def test_both_lists_of_tested_versions_are_one(pyproject: dict[str, Any]) -> None:
    """Uv reads pyproject.toml, pip reads constraints.txt, and both install the same."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]

    assert pinned == pyproject["tool"]["uv"]["constraint-dependencies"]
    assert pinned == sorted(pinned, key=lambda line: line.split("==")[0])
    assert all(line.count("==") == 1 for line in pinned)


def test_every_requirement_is_pinned(pyproject: dict[str, Any]) -> None:
    """No direct dependency is left out of the tested versions."""
    pinned = {line.split("==")[0] for line in pyproject["tool"]["uv"]["constraint-dependencies"]}
    groups = pyproject["dependency-groups"].values()
    wanted = [
        *pyproject["project"]["dependencies"],
        *pyproject["project"]["optional-dependencies"]["zoo"],
        *(item for group in groups for item in group),
    ]
    names = {re.split("[<>=]", item)[0] for item in wanted if isinstance(item, str)}

    assert names - pinned == set()


def test_the_tests_have_what_the_zoo_needs(pyproject: dict[str, Any]) -> None:
    """Tests of the zoo are skipped without it, and would be skipped by every check."""
    zoo = pyproject["project"]["optional-dependencies"]["zoo"]

    assert set(zoo) - set(pyproject["dependency-groups"]["test"]) == set()


def test_lock_file_is_not_tracked() -> None:
    """It names the hosts of whatever registry resolved it."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    assert run("git", "ls-files", "uv.lock").stdout == ""
    assert run("git", "check-ignore", "uv.lock").stdout.strip() == "uv.lock"


def test_console_script_is_the_module() -> None:
    """`winnow` and `python -m bench` are one command."""
    points = {point.name: point.value for point in distribution("winnow-bench").entry_points}
    assert points["winnow"] == "bench.cli:main"

    for arguments in (["--help"], ["list"]):
        by_script = run(winnow(), *arguments).stdout
        by_module = run(sys.executable, "-m", "bench", *arguments).stdout
        assert by_script.strip()
        assert _without_program(by_script) == _without_program(by_module)


def _without_program(text: str) -> list[str]:
    """Usage lines differ in the name of the program alone."""
    return [line.replace("python -m bench", "winnow") for line in text.splitlines()]


def test_console_script_is_not_shadowed(tmp_path: Path) -> None:
    """A user's own folders `attacks`, `defenses` and `bench` do not stand in the way."""
    for package in ("attacks", "defenses", "bench"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('the wrong one')\n")

    assert "kwta" in run(winnow(), "list", cwd=tmp_path).stdout


def test_every_package_is_shipped() -> None:
    """A folder of modules without `__init__.py` works here but is missing from the wheel."""
    folders = {
        file.parent
        for top in ("bench", "defenses", "attacks")
        for file in (ROOT / top).rglob("*.py")
    }

    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_tox_covers_every_supported_python(pyproject: dict[str, Any]) -> None:
    """Each version that the classifiers promise has an environment."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    environments = [name.strip() for name in tox["tox"]["env_list"].split(",")]
    prefix = "Programming Language :: Python :: "
    promised = [
        "py" + classifier.removeprefix(prefix).replace(".", "")
        for classifier in pyproject["project"]["classifiers"]
        if classifier.startswith(prefix)
    ]

    assert environments == [*promised, "lint", "types", "regression"]
