"""New plugins from templates: one file that runs at once, or a package that can be installed.

The templates are valid plugins under the names `my-defense` and `my-attack`; making a new one
replaces the names.
"""

from __future__ import annotations

import importlib
import importlib.resources
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import registry
from bench.errors import UsageError
from bench.record.files import write_bytes
from bench.registry.plugins import NAME

if TYPE_CHECKING:
    from bench.registry.plugins import Registry

Kind = Literal["defense", "attack"]

#: What the template of each kind is evaluated by.
_COMMANDS = {
    "defense": "--defense {name} --attacks quick",
    "attack": "--defense relu --attacks {name},pgd",
}


def command_of(kind: Kind, name: str) -> str:
    """The arguments of `run` that evaluate a new plugin."""
    return _COMMANDS[kind].format(name=name)


def new_file(kind: Kind, name: str, *, force: bool = False) -> Path:
    """Write a plugin into the working directory's folder, where it is found at once.

    Args:
        kind: of plugin.
        name: a bare name that nothing has yet.
        force: write over a draft of this name.

    Returns:
        The file: `defenses/my_defense.py` or `attacks/my_attack.py`.

    Raises:
        UsageError: the name cannot be used, or the file or its folder is in the way.
        StoreError: the file cannot be written.
    """
    path = Path(f"{kind}s") / f"{_module(name)}.py"
    _check_name(kind, name, path, force=force)
    if (path.parent / "__init__.py").exists() and not _is_own(path.parent):
        raise UsageError(
            f"{path.parent}/ has an __init__.py: it is a package of its own, in which plugins are "
            "not looked for; work in another folder, or write a package with --package"
        )
    if _is_building_block(path):
        raise UsageError(
            f"{path.parent}/{path.stem} is a module of Winnow's own; choose another name, such as "
            f"{_free(_registry(kind), name)!r}"
        )
    _write({path: _filled(kind, kind, name)}, force=force)
    return path


def new_package(kind: Kind, name: str, *, force: bool = False) -> Path:
    """Write an installable package with a plugin, its entry point and its tests.

    Returns:
        Its folder, named as the plugin is, in the working directory.

    Raises:
        UsageError: as `new_file`.
        StoreError: a file cannot be written.
    """
    folder, module = Path(name), _module(name)
    source = folder / "src" / f"winnow_{module}"
    _check_name(kind, name, source / "plugin.py", force=force)
    package = {
        folder / "pyproject.toml": _filled("package/pyproject", kind, name),
        folder / "README.md": _filled("package/readme", kind, name),
        source / "__init__.py": f'"""{name}, a plugin of Winnow."""\n',
        source / "plugin.py": _filled(kind, kind, name).replace("python -m bench", "winnow"),
        folder / "tests" / f"test_{module}.py": _filled("package/test", kind, name),
    }
    _write(package, force=force)
    return folder


def class_name(kind: Kind, name: str) -> str:
    """`my-defense` as `MyDefense`; with more behind it where the template has that word already."""
    words = "".join(word.capitalize() for word in name.split("-"))
    used = set(re.findall(r"\w+", _template(kind))) - {f"My{kind.capitalize()}"}
    return words if words not in used else f"{words}{kind.capitalize()}Plugin"


def _check_name(kind: Kind, name: str, path: Path, *, force: bool) -> None:
    """Refuse what cannot be a name, and one that is taken by anything but the draft at a path."""
    known = _registry(kind)
    if not NAME.fullmatch(name) or not name[0].isalpha():
        raise UsageError(
            f"{name!r} cannot be the name of a new {kind}: lower-case words of letters and digits "
            f"joined by hyphens, a letter first, such as {_suggestion(kind, name)!r}"
        )
    if path.exists():
        if not force:
            raise UsageError(f"{path} is there already; --force writes over it")
        if "version = 0" not in path.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"{path} is no draft (version = 0), and is not written over")
    elif known.knows(name):
        raise UsageError(
            f"there is a {kind} {name!r} already; choose another name, such as "
            f"{_free(known, name)!r}"
        )


def _registry(kind: Kind) -> Registry[Any]:
    return registry.defenses if kind == "defense" else registry.attacks


def _suggestion(kind: Kind, name: str) -> str:
    """The closest name that could be one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    cleaned = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-")
    cleaned = re.sub(r"^[0-9-]+", "", cleaned)
    return cleaned or f"my-{kind}"


def _free(known: Registry[Any], name: str) -> str:
    number = 2
    while known.knows(f"{name}-{number}"):
        number += 1
    return f"{name}-{number}"


def _module(name: str) -> str:
    return name.replace("-", "_")


def _is_own(folder: Path) -> bool:
    """Whether a folder is the package of plugins itself, as in a checkout."""
    places = importlib.import_module(f"bench.{folder.name}").__path__
    return folder.resolve() == Path(places[0]).resolve()


def _is_building_block(path: Path) -> bool:
    """Whether a module of this name is a built-in one that does not register the name itself."""
    place = Path(importlib.import_module(f"bench.{path.parent.name}").__path__[0])
    ours = [place / path.stem, place / path.name]
    return any(file.exists() and file.resolve() != path.resolve() for file in ours)


def _template(name: str) -> str:
    files = importlib.resources.files("bench.scaffold")
    return (files / "templates" / f"{name}.txt").read_text(encoding="utf-8")


def _filled(template: str, kind: Kind, name: str) -> str:
    """A template with the names of this plugin in place of its own."""
    text = _template(template)
    for old, new in (
        (f"My{kind.capitalize()}", class_name(kind, name)),
        (f"my-{kind}", name),
        ("MyContract", f"{kind.capitalize()}Contract"),
        ("MyClass", class_name(kind, name)),
        ("my-command", command_of(kind, name)),
        ("my-group", f"{kind}s"),
        ("my_plugin", _module(name)),
        ("my-plugin", name),
    ):
        text = text.replace(old, new)
    return text


def _write(files: dict[Path, str], *, force: bool) -> None:
    """Write all of them, or nothing where one is there already."""
    for path in files:
        if path.exists() and not force:
            raise UsageError(f"{path} is there already; --force writes over it")
    for path, text in files.items():
        write_bytes(path, text.encode())
