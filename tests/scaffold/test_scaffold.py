"""New plugins from templates: what is written, and what is refused."""

from __future__ import annotations

import ast
import sys
import tomllib
from typing import TYPE_CHECKING

import pytest

from bench import scaffold
from bench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.scaffold import Noun

KINDS: list[Noun] = ["defense", "attack"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_is_written_under_the_new_name_alone(kind: Noun, here: Path) -> None:
    """The template's own names are gone; nothing else lies in the folder."""
    path = scaffold.new_file(kind, "steady-hand")

    files = [file.relative_to(here) for file in here.rglob("*") if file.is_file()]
    assert [str(file) for file in files] == [str(path)] == [f"{kind}s/steady_hand.py"]
    text = path.read_text()
    (cls,) = (node for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    assert cls.name == "SteadyHand"
    assert f'@register_{kind}("steady-hand")' in text
    for leftover in ("my-", "My", "my_"):
        assert leftover not in text


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("My_Defense", "my-defense"),
        ("MyDefense", "my-defense"),
        ("my defense!", "my-defense"),
        ("../evil", "evil"),
        ("2nd-try", "nd-try"),
        ("", "my-defense"),
        ("kwta", "kwta-2"),
        ("networks", "networks-2"),
        ("activated", "activated-2"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_one_that_can(
    name: str, suggested: str, here: Path
) -> None:
    """The grammar of the registry, what is registered, and modules of Winnow's own."""
    with pytest.raises(UsageError, match=f"such as '{suggested}'"):
        scaffold.new_file("defense", name)
    assert list(here.iterdir()) == []
    scaffold.new_file("defense", suggested)


def test_the_checkout_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Winnow is installed, its plugins are under `bench` alone."""
    monkeypatch.setitem(sys.modules, "defenses", None)  # importing it raises
    scaffold.new_file("defense", "steady-hand")


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_there_is_not_written_over(kind: Noun) -> None:
    """Unless it is asked for, and then only a draft."""
    path = scaffold.new_file(kind, "steady-hand")
    path.write_text(f"{path.read_text()}# mine\n")
    with pytest.raises(UsageError, match="there already; --force writes over it"):
        scaffold.new_file(kind, "steady-hand")
    assert path.read_text().endswith("# mine\n")
    scaffold.new_file(kind, "steady-hand", force=True)
    assert not path.read_text().endswith("# mine\n")
    path.write_text(path.read_text().replace("version = 0", "version = 1"))
    with pytest.raises(UsageError, match="is no draft"):
        scaffold.new_file(kind, "steady-hand", force=True)


def test_a_package_of_somebody_s_own_is_left_alone(here: Path) -> None:
    """Plugins are not looked for in it, so that one would never be found."""
    (here / "defenses").mkdir()
    (here / "defenses" / "__init__.py").touch()
    with pytest.raises(UsageError, match="is a package of its own"):
        scaffold.new_file("defense", "steady-hand")


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_names_its_entry_point_and_inherits_the_contract(kind: Noun) -> None:
    """What pyproject.toml points at is there, and so is the test."""
    folder = scaffold.new_package(kind, "steady-hand")
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    (target,) = project["entry-points"][f"winnow.{kind}s"].values()
    module, _, cls = target.partition(":")

    assert project["name"] == "winnow-steady-hand"
    assert list(project["entry-points"][f"winnow.{kind}s"]) == ["steady-hand"]
    source = (folder / "src" / f"{module.replace('.', '/')}.py").read_text()
    assert f"class {cls}(" in source
    test = (folder / "tests" / "test_steady_hand.py").read_text()
    assert f"class TestSteadyHand({kind.capitalize()}Contract):" in test
    assert 'name = "steady-hand"' in test
    for file in folder.rglob("*.*"):
        assert not [word for word in ("my-", "My", "my_") if word in file.read_text()], file


@pytest.mark.parametrize(
    ("kind", "name"),
    [("defense", "network-defense"), ("attack", "norm"), ("attack", "threat-model")],
)
def test_a_class_is_not_named_as_something_that_the_template_imports(kind: Noun, name: str) -> None:
    """`norm` would otherwise be `class Norm`, in place of the norms."""
    tree = ast.parse(scaffold.new_file(kind, name).read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    (cls,) = (node.name for node in tree.body if isinstance(node, ast.ClassDef))

    assert cls not in imported
