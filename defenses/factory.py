"""Anybody's `nn.Module`: made by a function in a Python file that the user names."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.api import Defense, Weights
from bench.errors import ModelError, UsageError
from bench.registry import register_defense

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import nn


#: What of the folder of a file goes with it.
BESIDE = (".py", ".safetensors", ".pt", ".pth", ".npz", ".npy", ".json")


#: The folders of files from which modules were imported, by the modules' names.
_FOLDERS: dict[str, Path] = {}


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Have what lies beside a file imported from there, and not what another file's folder has.

    Modules of one name in both are imported anew each time, and kept for neither: an import within
    `forward` then fails instead of getting the other one.
    """
    tops = {name.partition(".")[0] for name, place in _FOLDERS.items() if place != folder}
    both = {top for top in tops if (folder / f"{top}.py").exists() or (folder / top).is_dir()}
    _forget(both)
    before = {*sys.modules}
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have taken it off itself
            sys.path.remove(str(folder))
        for name in {*sys.modules} - before:
            module = sys.modules[name]
            places = [getattr(module, "__file__", None), *(getattr(module, "__path__", None) or ())]
            if any(Path(place).is_relative_to(folder) for place in places if place):
                _FOLDERS[name] = folder
        _forget(both)


def _forget(tops: set[str]) -> None:
    """Have modules imported anew, and all below them."""
    for name in [name for name in _FOLDERS if name.partition(".")[0] in tops]:
        del _FOLDERS[name]
        sys.modules.pop(name, None)


@register_defense("file")
class Factory(Defense):
    """What a function in a Python file makes: an `nn.Module` from images in [0, 1] to logits.

    The function is called without arguments and loads the weights itself. The file is executed,
    its folder being importable from it, wherever the model is needed: it has to make the same
    weights each time. Outcomes are bound to those weights and to the text of the file.

    Args:
        place: `PATH.py:FUNCTION`.

    Raises:
        UsageError: not of that form.
    """

    summary = "Your own module: what FUNCTION() in the file makes (the file is executed)"
    argument = "PATH.py:FUNCTION"
    executes = True

    def __init__(self, place: str) -> None:
        path, _, function = place.rpartition(":")
        if not (path and function.isidentifier()):
            raise UsageError(
                f"write file:PATH.py:FUNCTION (got {place!r}); a comma separates defenses: a path "
                "that has one in it needs another name, or a link without one"
            )
        self.path = Path(path)
        if not self.path.exists():
            with contextlib.suppress(RuntimeError):  # a home of nobody's
                self.path = self.path.expanduser()
        self.function = function

    def network(self, *, shape: tuple[int, int, int]) -> str:
        """The function's name: what it makes is not known before it is called."""
        return self.function

    def build(self, *, network: str, shape: tuple[int, int, int], classes: int) -> nn.Module:
        """What the function makes, weights and all.

        Raises:
            UsageError: there is no such file or function, or it raises an error.
            ModelError: it makes no module.
        """
        import torch

        source = self._read()
        with _importable(self.path.resolve().parent):
            made = self._call(source)
        if not isinstance(made, torch.nn.Module):
            advice = (
                "return the model alone, what prepares its inputs being first in its forward"
                if isinstance(made, (tuple, list))
                else "return one that has the network as a submodule and calls it in its forward"
            )
            raise ModelError(
                f"{self.path}: {self.function}() made {type(made).__name__}, not an nn.Module: "
                f"{advice}"
            )
        return made

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise UsageError(f"no file {self.path} ({error.strerror or error})") from error

    def _call(self, source: bytes) -> Any:
        # A name of its own for each text, under which what the file defines can be found again.
        name = f"winnow_file_{hashlib.sha256(source).hexdigest()[:16]}"
        spec = importlib.util.spec_from_file_location(name, self.path)
        if spec is None or spec.loader is None:
            raise UsageError(f"{self.path} is not a Python file")
        try:
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            spec.loader.exec_module(module)
            factory = getattr(module, self.function, None)
            if not callable(factory):
                raise UsageError(f"{self.path} has no function {self.function!r}")
            return factory()
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(
                f"{self.path}: {self.function}() failed: {type(error).__name__}: {error}"
            ) from error

    def dependencies(self) -> Mapping[str, str]:
        """The text of the file; not of what it imports."""
        return {"code": hashlib.sha256(self._read()).hexdigest()}

    def files(self) -> tuple[Path, ...]:
        """The file, and the modules, packages and weights beside it."""
        folder = self.path.parent
        beside = [p for p in sorted(folder.glob("*")) if p.suffix in BESIDE and p.is_file()]
        packages = [p.parent for p in sorted(folder.glob("*/__init__.py"))]
        inside = [path for package in packages for path in sorted(package.rglob("*.py"))]
        return tuple(dict.fromkeys([self.path, *beside, *inside]))

    def weights(self, *, network: str, shape: tuple[int, int, int], classes: int) -> Weights:
        """The function loads them."""
        return Weights(f"made by {self.path.name}:{self.function}")
