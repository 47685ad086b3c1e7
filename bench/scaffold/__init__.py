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
from bench.registry.grammar import NAME

if TYPE_CHECKING:
    from bench.registry.plugins import Registry

Noun = Literal["defense", "attack"]

#: What the template of each noun is evaluated by.
_COMMANDS = {
    "defense": "--defense {name} --attacks quick",
    "attack": "--defense relu --attacks {name},pgd",
}


#: Characters of a new name at most: it becomes a file's name, and stands in every table.
LONGEST = 60


def command_of(noun: Noun, name: str) -> str:
    """The arguments of `run` that evaluate a new plugin."""
    return _COMMANDS[noun].format(name=name)


def new_file(noun: Noun, name: str, *, force: bool = False) -> Path:
    """Write a plugin into the working directory's folder, where it is found at once.

    Args:
        noun: of plugin.
        name: a bare name that nothing has yet.
        force: write over a draft of this name.

    Returns:
        The file: `defenses/my_defense.py` or `attacks/my_attack.py`.

    Raises:
        UsageError: the name cannot be used, or the file or its folder is in the way.
        StoreError: the file cannot be written.
    """
    path = Path(f"{noun}s") / f"{_module(name)}.py"
    _check_name(noun, name, path, force=force)
    if (path.parent / "__init__.py").exists() and not _is_own(path.parent):
        raise UsageError(
            f"{path.parent}/ has an __init__.py: it is a package of its own, in which plugins are "
            "not looked for; work in another folder, or write a package with --package"
        )
    if _is_building_block(path):
        raise UsageError(
            f"{path.parent}/{path.stem} is a module of Winnow's own; choose another name, such as "
            f"{_free(_registry(noun), name)!r}"
        )
    _write({path: _filled(noun, noun, name)}, force=force)
    return path


def new_package(noun: Noun, name: str, *, force: bool = False) -> Path:
    """Write an installable package with a plugin, its entry point and its tests.

    Returns:
        Its folder, named as the plugin is, in the working directory.

    Raises:
        UsageError: as `new_file`.
        StoreError: a file cannot be written.
    """
    folder, module = Path(name), _module(name)
    source = folder / "src" / f"winnow_{module}"
    _check_name(noun, name, source / "plugin.py", force=force)
    package = {
        folder / "pyproject.toml": _filled("package/pyproject", noun, name),
        folder / "README.md": _filled("package/readme", noun, name),
        source / "__init__.py": f'"""{name}, a plugin of Winnow."""\n',
        source / "plugin.py": _filled(noun, noun, name).replace("python -m bench", "winnow"),
        folder / "tests" / f"test_{module}.py": _filled("package/test", noun, name),
    }
    _write(package, force=force)
    return folder


def class_name(noun: Noun, name: str) -> str:
    """`my-defense` as `MyDefense`; with more behind it where the template has that word already."""
    words = "".join(word.capitalize() for word in name.split("-"))
    used = set(re.findall(r"\w+", _template(noun))) - {f"My{noun.capitalize()}"}
    return words if words not in used else f"{words}{noun.capitalize()}Plugin"


def _check_name(noun: Noun, name: str, path: Path, *, force: bool) -> None:
    """Refuse what cannot be a name, and one that is taken by anything but the draft at a path."""
    known = _registry(noun)
    if not NAME.fullmatch(name) or not name[0].isalpha() or len(name) > LONGEST:
        raise UsageError(
            f"{name!r} cannot be the name of a new {noun}: lower-case words of letters and digits "
            f"joined by hyphens, a letter first, {LONGEST} characters at most, such as "
            f"{_suggestion(noun, name)!r}"
        )
    if path.exists():
        if not force:
            raise UsageError(f"{path} is there already; --force writes over it")
        if "version = 0" not in path.read_text(encoding="utf-8", errors="replace"):
            raise UsageError(f"{path} is no draft (version = 0), and is not written over")
    elif known.knows(name):
        raise UsageError(
            f"there is a {noun} {name!r} already; choose another name, such as "
            f"{_free(known, name)!r}"
        )


def _registry(noun: Noun) -> Registry[Any]:
    return registry.defenses if noun == "defense" else registry.attacks


def _suggestion(noun: Noun, name: str) -> str:
    """The closest name that could be one."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", name)
    cleaned = re.sub(r"[^a-z0-9]+", "-", spaced.lower()).strip("-")
    cleaned = re.sub(r"^[0-9-]+", "", cleaned)
    return cleaned[:LONGEST].rstrip("-") or f"my-{noun}"


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


def _filled(template: str, noun: Noun, name: str) -> str:
    """A template with the names of this plugin in place of its own."""
    text = _template(template)
    for old, new in (
        (f"My{noun.capitalize()}", class_name(noun, name)),
        (f"my-{noun}", name),
        ("MyContract", f"{noun.capitalize()}Contract"),
        ("MyClass", class_name(noun, name)),
        ("my-command", command_of(noun, name)),
        ("my-group", f"{noun}s"),
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
