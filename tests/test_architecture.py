"""Who may import whom, that no imports run in a circle, and what the core may know and say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import bench
from bench import registry
from bench.api.attacks import Approach

ROOT = Path(bench.__file__).parent.parent
#: Each room of `bench`, and the rooms that it may import from; `cli` may from all.
ROOMS = {
    "errors": "",
    "threat": "errors",
    "api": "errors threat",
    "registry": "errors threat api",
    "data": "errors threat api",
    "record": "errors threat api",
    "trust": "errors threat api record",
    "report": "errors threat api record",
    "models": "errors threat api registry record data",
    "matrix": "errors threat api registry record data models",
    "train": "errors threat api registry record data models",
    "figures": "errors threat api registry record data models report",
    "run": "errors threat api registry record data models matrix trust train report figures",
    "testing": "errors threat api registry record data models matrix trust train report run",
    "scaffold": "errors registry record",
    "": "errors registry run",  # `bench` itself, the public API
    "__main__": "cli",
}
ROOMS["cli"] = " ".join(room for room in ROOMS if room != "__main__")
#: All of `bench` that a plugin may know, beside other plugins' building blocks.
PLUGIN_API = "errors threat api registry"
PLUGINS = ("attacks", "defenses")

SOURCES = {
    ".".join((*prefix, *path.with_suffix("").parts)).removesuffix(".__init__"): path
    for top, prefix in (("bench", ()), *((plugins, ("bench",)) for plugins in PLUGINS))
    for path in sorted(p.relative_to(ROOT) for p in (ROOT / top).rglob("*.py"))
    if not {*path.parts[1:2]} & {*PLUGINS}
}


def test_no_class_has_the_name_of_another() -> None:
    """Whoever reads one of them means one thing; names that begin with _ are a file's own."""
    classes: dict[str, list[str]] = {}
    for path in SOURCES.values():
        for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes.setdefault(node.name, []).append(str(path))
    assert {name: places for name, places in classes.items() if len(places) > 1} == {}


def imported(source: str) -> set[str]:
    """Every module that a source imports, anywhere in it, for types alone as well.

    `from bench.a import x` may name a module or something in one: it counts as `bench.a.x` where
    there is such a module, and as `bench.a` otherwise.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                longer = f"{module}.{alias.name}"
                rooms = module == "bench" and alias.name in (*ROOMS, *PLUGINS)
                found.add(longer if longer in SOURCES or rooms else module)
    return found


def room_of(module: str) -> str:
    """The room of a module of `bench`."""
    return module.split(".")[1] if "." in module else ""


def violations(name: str, source: str) -> list[str]:
    """What the module called `name` must not import, of what its source imports."""
    own, wrong = room_of(name), []
    for target in sorted(imported(source)):
        if target.startswith("."):
            wrong.append(f"{name} imports {target} relatively")
        elif target.partition(".")[0] in PLUGINS:
            wrong.append(f"{name} imports {target}, whose name is bench.{target}")
        elif target.partition(".")[0] == "bench":
            allowed = PLUGIN_API if own in PLUGINS else ROOMS[own]
            blocks = PLUGINS if own in PLUGINS else ()
            if room_of(target) not in (own, *allowed.split(), *blocks):
                wrong.append(f"{name} imports {target}; its room may import {allowed}")
    return wrong


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The groups of modules that import one another in a circle (Tarjan 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        order[node] = low[node] = len(order)
        stack.append(node)
        for target in sorted(graph[node]):
            if target not in order:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], order[target])
        if low[node] == order[node]:
            group = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in order:
            visit(node)
    return found


def named(source: str, names: set[str]) -> list[tuple[int, str]]:
    """Lines on which a whole string is one of these names, with or without options."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return [
        (node.lineno, node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
        if re.sub(r"\[.*\]$|:.*$", "", node.value) in names
    ]


def spoken(source: str) -> list[int]:
    """The lines on which a source prints or ends the process."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) in {"print", "sys.exit", "exit", "quit"}:
                lines.append(node.lineno)
        elif isinstance(node, ast.Raise) and node.exc and "SystemExit" in ast.unparse(node.exc):
            lines.append(node.lineno)
    return sorted(lines)


def read(module: str) -> str:
    """The source of a module."""
    return (ROOT / SOURCES[module]).read_text(encoding="utf-8")


def test_imports_point_downwards() -> None:
    """At the top of a module, inside its functions, and for types alone."""
    assert [fault for name in SOURCES for fault in violations(name, read(name))] == []


def test_no_imports_run_in_a_circle() -> None:
    """Whether at the top, inside functions or for types; a package's face apart from its rooms."""
    graph = {name: imported(read(name)) & SOURCES.keys() - {name} for name in SOURCES}
    assert circles(graph) == []


def test_the_core_knows_no_attack_and_no_defense_by_name() -> None:
    """What it has to know of one, the plugin declares.

    Apart from this stand the self-test, which is about certain defenses, and AutoAttack's figure,
    which others publish under this name.
    """
    attacks = {*registry.attacks.names()} - {*get_args(Approach)}
    names = attacks | {*registry.defenses.names()}
    found = {
        f"{name}:{line} {word}"
        for name in SOURCES
        if room_of(name) not in (*PLUGINS, "testing")
        for line, word in named(read(name), names)
        if word != "autoattack" or room_of(name) not in ("record", "report")
    }
    assert found == set()


def test_only_the_command_line_speaks() -> None:
    """Nothing else prints or sets an exit code."""
    talking = {name for name in SOURCES if spoken(read(name))}
    assert {name for name in talking if room_of(name) not in ("cli", "__main__")} == set()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("bench.errors", "import bench.threat"),
        ("bench.record.store", "def f():\n    from bench.matrix import plan"),
        ("bench.data.base", "if TYPE_CHECKING:\n    from bench.record.files import write"),
        ("bench.trust.case", "from bench import registry"),
        ("bench.report.markdown", "from bench.registry.grammar import Written"),
        ("bench.matrix.judge", "from bench import run"),
        ("bench.cli.run", "import defenses.kwta"),
        ("bench.api", "from bench.attacks import foolbox"),
        ("bench.data", "from .base import Dataset"),
        ("bench.attacks.foolbox", "from bench.record import schema"),
        ("bench.defenses.kwta", "import bench"),
    ],
)
def test_violations_are_seen(name: str, source: str) -> None:
    """The check above is one that can fail."""
    assert len(violations(name, source)) == 1


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("bench.matrix.plan", "from bench import registry\nfrom bench.record.schema import Cell"),
        ("bench.data.images", "from bench.data.base import Dataset"),
        ("bench.attacks.foolbox", "from bench.attacks.blocks import adapter"),
        ("bench.defenses.kwta", "import torch\nfrom bench.defenses.networks import small"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    """Downwards, within one room, among plugins' building blocks, and to libraries."""
    assert violations(name, source) == []


def test_circles_and_names_and_speaking_are_seen() -> None:
    """Each way of a circle, of naming an attack, of printing or exiting, and nothing else."""
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": {"f"}, "f": set()}
    assert circles(graph) == [["a", "b", "c"]]
    source = '"""pgd"""\nx = "pgd[steps=80]"\ny = "pgd is an attack"\nz = {"fab-t": 1}\n'
    assert named(source, {"pgd", "fab-t"}) == [(2, "pgd[steps=80]"), (4, "fab-t")]
    source = "print(1)\nsys.exit(2)\nraise SystemExit(1)\nconsole.print(1)\n"
    assert spoken(source) == [1, 2, 3]


def test_the_owner_s_folders_are_linked_into_the_package() -> None:
    """They stay at the top of the repository; a clone without links would lack every plugin."""
    for folder in PLUGINS:
        link = ROOT / "bench" / folder
        assert link.is_symlink()
        assert link.resolve() == ROOT / folder


@pytest.mark.parametrize(
    "statement",
    [
        "import bench",
        "from bench.data import DATASETS, open_dataset; open_dataset('digits')",
        "from bench.registry import attacks, defenses; assert attacks.names() and defenses.names()",
    ],
)
def test_listing_does_not_import_heavy_libraries(statement: str) -> None:
    """Help texts and lists answer at once, because nothing imports torch until it is needed."""
    heavy = "{'torch', 'torchvision', 'sklearn', 'pyarrow', 'foolbox', 'pandas', 'scipy'}"
    check = f"import sys; print(sorted({heavy} & sys.modules.keys()))"

    done = subprocess.run(
        [sys.executable, "-c", f"{statement}\n{check}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout.strip() == "[]"
