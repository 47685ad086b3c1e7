from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
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


def run(
    *command: str, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed, with these variables besides."""
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | (env or {}), capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done


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
        *(i for extra in pyproject["project"]["optional-dependencies"].values() for i in extra),
        *(item for group in groups for item in group),
    ]
    names = {re.split(r"[\[<>=]", item)[0] for item in wanted if isinstance(item, str)}

    assert names - pinned == set()


def test_the_tests_have_what_the_extras_need(pyproject: dict[str, Any]) -> None:
    """Tests of an extra are skipped without it, and would be skipped by every check.

    Those of corruptions have an environment of their own: with numba one more attack runs.
    """
    extras = pyproject["project"]["optional-dependencies"]
    wanted = {item for name in extras.keys() - {"corruptions"} for item in extras[name]}

    assert wanted - set(pyproject["dependency-groups"]["test"]) == set()


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


#: In a folder of its own with packages of these names: `import attacks` is the user's.
BESIDE = """
import json, sys
from bench import registry
import attacks, defenses, benchmarks, tests
own = [module.__file__.startswith(sys.argv[1]) for module in (attacks, defenses, benchmarks, tests)]
counts = [len(registry.attacks.names()) > 30, len(registry.defenses.names()) > 20]
print(json.dumps([*own, *counts, not {"bench.attacks.mine", "attacks.mine"} & sys.modules.keys()]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a wheel that was built from the sdist is laid out, as an installer would."""
    folder = tmp_path_factory.mktemp("wheel")
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    build = "import sys; from setuptools import build_meta as b; getattr(b, sys.argv[1])('..')"
    copy = folder / "copy"
    tracked = run("git", "ls-files", "-z").stdout.split("\0")
    for name in filter(None, tracked):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    run(sys.executable, "-c", build, "build_sdist", cwd=copy)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        assert not any(member.issym() for member in archive.getmembers())
        archive.extractall(folder / "sdist", filter="data")
    (source,) = (folder / "sdist").iterdir()
    run(sys.executable, "-c", build, "build_wheel", cwd=source)
    (built,) = source.parent.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A repository of somebody's with packages that have the names of our folders."""
    for package in ("attacks", "defenses", "benchmarks", "tests"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "mine.py").write_text("raise RuntimeError('executed')\n")
    return tmp_path


def test_a_wheel_is_bench_and_nothing_else(wheel: Path) -> None:
    """Whole: every module and data file of ours, and no other top-level name."""
    top = sorted(path.name for path in wheel.iterdir())
    assert top == ["bench", f"winnow_bench-{distribution('winnow-bench').version}.dist-info"]
    for folder, place in (
        ("bench", "bench"),
        *((p, f"bench/{p}") for p in ("attacks", "defenses")),
    ):
        tracked = run("git", "ls-files", folder).stdout.splitlines()
        wanted = {Path(name).relative_to(folder) for name in tracked if not (ROOT / name).is_dir()}
        assert {p for p in wanted if not (wheel / place / p).is_file()} == set()


def test_an_sdist_has_no_part_of_the_tests(wheel: Path) -> None:
    """Setuptools takes `tests/test_*.py`, which need what lies beside them."""
    (source,) = (p for p in (wheel.parent / "sdist").iterdir() if p.is_dir())
    assert (source / "bench").is_dir()
    assert not (source / "tests").exists()


@pytest.mark.whole
@pytest.mark.parametrize("installed", ["checkout", "wheel"])
def test_it_works_beside_packages_of_the_same_names(
    installed: str, user: Path, request: pytest.FixtureRequest
) -> None:
    """With two workers, from a folder that has its own; those stay what they are."""
    place = ROOT if installed == "checkout" else request.getfixturevalue("wheel")
    paths = {"PYTHONPATH": str(place)}
    beside = run(sys.executable, "-c", BESIDE, str(user), cwd=user, env=paths)
    assert json.loads(beside.stdout) == [True] * 7
    command = ["run", "--defense", "relu", "--attacks", "fgsm", "--n", "10", "--workers", "2"]
    command += ["--shard-size", "5", "--no-examine", "--eps", "0.1"]
    done = run(sys.executable, "-m", "bench", *command, cwd=user, env=paths)
    assert "| fgsm |" in done.stdout
    assert "executed" not in done.stderr


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

    assert environments == [*promised, "lint", "types", "docs", "regression"]
