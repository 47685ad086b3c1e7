"""Where plugins lie, and how their modules are imported: whatever one raises stays with it.

Plugins are the modules directly in the packages `bench.defenses` and `bench.attacks`, and Python
files in `./defenses` and `./attacks` of the working directory, which join those packages. Both are
executed when plugins are listed.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import re
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import WinnowError, in_one_line
from bench.registry.surroundings import undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableSequence


def join_local(package: str, places: MutableSequence[str]) -> None:
    """Let the files of the working directory's folder be modules of a package of plugins.

    A package calls it with its `__path__` when it is imported, so that every process that meets
    a plugin's class by its module's name finds it: a spawned worker as well. Its own modules are
    found first.

    Args:
        package: its name, the last part of which is that of the folder.
        places: its `__path__`, changed in place.
    """
    folder = local_folder(package)
    if folder is not None and not any(_same(folder, Path(place)) for place in places):
        places.append(str(folder))


def local_folder(package: str) -> Path | None:
    """The working directory's folder of plugins, absolute; None where there is none.

    A folder with an `__init__.py` is a package of somebody's own and is left alone.
    """
    try:
        folder = Path.cwd() / package.rpartition(".")[2]
    except OSError:  # the working directory was removed
        return None
    return folder if folder.is_dir() and not (folder / "__init__.py").exists() else None


def is_local(module: str) -> bool:
    """Whether a module comes from the working directory's folder and not from the package."""
    package = sys.modules.get(module.rpartition(".")[0])
    places = list(getattr(package, "__path__", ()))
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and any(_same(Path(file).parent, Path(p)) for p in places[1:])


@dataclass(frozen=True)
class Module:
    """A module that may hold plugins."""

    name: str
    """Dotted."""
    path: Path
    """Its file."""
    fault: str = ""
    """Why it must not be imported; empty where it may."""
    local: bool = False
    """Whether it is a file of the working directory."""

    def import_it(self) -> str:
        """Import it; what it raised, in one line, or nothing."""
        if self.fault:
            return self.fault
        _forget_stale(self.path)
        try:
            with undisturbed():
                importlib.import_module(self.name)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 - anybody's code may raise anything
            lines = [
                frame.lineno
                for frame in traceback.extract_tb(error.__traceback__)
                if Path(frame.filename) == self.path
            ]
            where = f"line {lines[-1]}: " if lines else ""
            return where + told(error)
        return ""

    def plugin_names(self, noun: str) -> set[str]:
        """The names that its file registers, as far as its text says, and the file's own.

        Args:
            noun: `defense` or `attack`.
        """
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        written = re.findall(rf"register_{noun}\(\s*[\"']([^\"']+)[\"']", text)
        return {self.path.stem.replace("_", "-"), *written}


def told(error: BaseException) -> str:
    """What a plugin's module raised, in one line."""
    text = in_one_line(error)
    if isinstance(error, WinnowError):
        text = f"{type(error).__name__}: {text}"
    name = error.name or "" if isinstance(error, ImportError) else ""
    if name.partition(".")[0] in ("attacks", "defenses"):
        text += f"; the built-in ones are called bench.{name}"
    return text


def plugin_modules(package: str) -> Iterator[Module]:
    """The modules of a package that may hold plugins: its own, then the working directory's.

    Packages inside are building blocks, and so is a module whose name begins with `_`.
    """
    own, *local = importlib.import_module(package).__path__
    taken = set()
    for place in (own, *local):
        for found in pkgutil.iter_modules([place]):
            name, path = found.name, Path(place) / f"{found.name}.py"
            if found.ispkg or name.startswith("_"):
                taken.add(name)
            elif name in taken:
                fault = f"{path.parent.name}/{name} is a built-in's name; rename the file"
                yield Module(f"{package}.{name}", path, fault)
            else:
                taken.add(name)
                yield Module(f"{package}.{name}", path, local=place != own)


def _forget_stale(path: Path) -> None:
    """Remove a module's compiled file where it is older than the module.

    Python compares seconds and sizes: what was edited within a second, to the same length, would
    be executed as it was before.
    """
    try:
        cached = Path(importlib.util.cache_from_source(str(path)))
        if cached.stat().st_mtime_ns <= path.stat().st_mtime_ns:
            cached.unlink()
    except (OSError, NotImplementedError):
        return  # nothing is compiled, or nothing may be removed


def edition(cls: type, version: int) -> int:
    """The version of a plugin's results: its number, or for a draft one that its file decides.

    A draft has version 0, or lies in the working directory and gives no number of its own: every
    change of its file makes it another version, so that nothing stored is taken for what the file
    says now.
    """
    if version and ("version" in vars(cls) or not is_local(cls.__module__)):
        return version
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return version
    return int.from_bytes(hashlib.sha256(Path(file).read_bytes()).digest()[:6], "big")


def shown(path: Path) -> str:
    """A path as a reader of the terminal knows it: from the working directory where it is below."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def _same(a: Path, b: Path) -> bool:
    try:
        return a.resolve() == b.resolve()
    except OSError:
        return False
