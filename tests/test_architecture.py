"""Who may import whom (the order is explained in `LAYERS`), and who may speak to the user."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bench

ROOT = Path(bench.__file__).parent.parent

#: The modules of `bench` from the bottom up. One imports only itself and what lies below its row.
LAYERS = [
    {"errors"},
    {"threat", "grammar"},
    {"api", "discovery"},
    {"interface"},
    {"registry"},
    {"data", "record"},
    {"matrix", "trust", "train"},
    {"report"},
    {"config"},
    {"preparation"},
    {"recording"},
    {"inquiry"},
    {"run"},
    {
        "calibration",
        "evaluation",
        "exports",
        "figures",
        "imports",
        "publish",
        "scaffold",
        "seeds",
        "verify",
    },
    {"testing"},
    {"cli"},
    {"", "__main__"},  # `bench` itself, the public API
]
LEVELS = {module: level for level, row in enumerate(LAYERS) for module in row}
#: All of `bench` that a plugin may know.
PLUGIN_API = {"api", "registry", "threat", "errors"}
PLUGINS = ("attacks", "defenses")

FILES = [
    path.relative_to(ROOT)
    for package in ("bench", *PLUGINS)
    for path in sorted((ROOT / package).rglob("*.py"))
]


def imported(source: str) -> set[str]:
    """Every module that a source imports, anywhere in it, as `package.module`.

    `from bench import x` may name a module or something in the package: it counts as `bench.x`
    when there is such a module, and otherwise as `bench`.
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            for alias in node.names:
                is_module = module == "bench" and alias.name in LEVELS
                found.add(f"bench.{alias.name}" if is_module else module)
    return found


def violations(name: str, source: str) -> list[str]:
    """What the module called `name` must not import, of what its source imports."""
    package, _, rest = name.partition(".")
    own = rest.partition(".")[0]
    wrong = []
    for target in sorted(imported(source)):
        top, _, rest = target.partition(".")
        module = rest.partition(".")[0]
        if top == "":
            wrong.append(f"{name} imports {target} relatively")
        elif package == "bench" and top in PLUGINS:
            wrong.append(f"{name} imports {target}; plugins are reached through the registry")
        elif package in PLUGINS and top == "bench" and module not in PLUGIN_API:
            wrong.append(f"{name} imports {target}; plugins know {sorted(PLUGIN_API)}")
        elif package == top == "bench" and module != own and LEVELS[module] >= LEVELS[own]:
            wrong.append(f"{name} imports {target}, which does not lie below it")
    return wrong


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


def speaks(path: Path) -> bool:
    """Whether a file is of the command line."""
    return path.parts[:2] == ("bench", "cli") or path.name == "__main__.py"


def dotted(path: Path) -> str:
    """`bench/data/__init__.py` as `bench.data`."""
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_point_downwards(path: Path) -> None:
    """At the top of a module, inside its functions, and for types alone."""
    assert violations(dotted(path), (ROOT / path).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", [path for path in FILES if not speaks(path)], ids=str)
def test_only_the_command_line_speaks(path: Path) -> None:
    """Nothing else prints or sets an exit code."""
    assert spoken((ROOT / path).read_text(encoding="utf-8")) == []


def test_every_module_has_a_place() -> None:
    """A new module or package of `bench` is given its row on purpose."""
    modules = {path.with_suffix("").parts[1] for path in FILES if path.parts[0] == "bench"}

    assert modules - {"__init__"} - LEVELS.keys() == set()


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("bench.errors", "import bench.threat"),
        ("bench.record.store", "def f():\n    from bench.matrix import plan"),
        ("bench.data", "if TYPE_CHECKING:\n    from bench.record.files import write"),
        ("bench.matrix.judge", "from bench import run"),
        ("bench.run", "from bench import evaluate"),
        ("bench.cli.run", "import defenses.kwta"),
        ("bench.api", "from attacks import foolbox"),
        ("bench.data", "from .sets import DATASETS"),
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
        ("bench.data", "from bench.data.base import Dataset"),
        (
            "bench.attacks.foolbox",
            "from attacks.bridging import radius\nfrom bench.api import Attack",
        ),
        ("bench.defenses.kwta", "import torch\nfrom defenses.networks import cnn"),
    ],
)
def test_what_is_allowed_passes(name: str, source: str) -> None:
    """Downwards, within one package, and to libraries."""
    assert violations(name, source) == []


def test_speaking_is_seen() -> None:
    """Each way of printing or exiting is found, on its line; a method called print is none."""
    source = "print(1)\nsys.exit(2)\nraise SystemExit(1)\nconsole.print(1)\n"

    assert spoken(source) == [1, 2, 3]


@pytest.mark.parametrize(
    "statement",
    [
        "import bench",
        "from bench.data import DATASETS, open_dataset; open_dataset('digits')",
        "from bench.registry import defenses; assert defenses.names()",
        "from bench.registry import attacks; assert attacks.names()",
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
