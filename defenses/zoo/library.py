"""What defenses share that are models of a library.

Where weights lie on this machine and how they get there, and from the names in somebody's file of
weights to those of a module.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bench.api import Defense
from bench.errors import CheckpointError, InputNotice, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

Shape = tuple[int, int, int]

#: Keys under which a file may hold its state_dict.
_WRAPPERS = ("state_dict", "model", "net", "last")

#: Prefixes that wrappers of modules leave, in the order in which they are nested.
_PREFIXES = ("module.", "model.")

#: Buffers that an architecture sets itself: constants of the standardisation, and a counter that
#: only training reads.
_CONSTANTS = frozenset({"mu", "sigma", "mean", "std", "num_batches_tracked"})


class Borrowed(Defense):
    """A model of a library behind its own preprocessing."""

    library: ClassVar[str]
    """Whose architecture it is: the distribution."""
    model: str
    """As the library calls it."""

    @property
    def architecture(self) -> str:
        """The library's name of it."""
        return self.model

    def network(self, *, shape: Shape) -> str:
        """The library's name of the architecture."""
        return self.architecture

    def dependencies(self) -> Mapping[str, str]:
        """The architecture is the library's."""
        return {self.library: importlib.metadata.version(self.library)}

    def adapt(self, contents: Sequence[Any], module: nn.Module) -> Any:
        """Under the names that the module has behind its preprocessing."""
        (content,) = contents
        return fit(content, module)

    def check_colour(self, shape: Shape) -> None:
        """Refuse images that are not in colour.

        Raises:
            UsageError: they have another number of channels than 3.
        """
        if shape[0] != 3:
            raise UsageError(f"{self.name} takes images in colour: 3 channels (got {shape[0]})")

    def check_classes(self, own: int, classes: int) -> None:
        """Refuse data with another number of classes than the weights have.

        Raises:
            UsageError: they differ.
        """
        if own != classes:
            raise UsageError(
                f"the weights of {self.name} tell {own} classes apart, and the data have "
                f"{classes}; name weights for these data with --checkpoint '{self.name}=PATH', or, "
                "where the data have some of those classes alone, name all of them in the model's "
                "order: folder:PATH[classes=FILE]"
            )


def models_folder() -> Path:
    """The folder of models: `$WINNOW_MODELS`, or `models` under the current directory."""
    return Path(os.environ.get("WINNOW_MODELS") or "models").expanduser()


def model_info_folder() -> Path | None:
    """RobustBench's `model_info`, from a clone of it: `$WINNOW_MODEL_INFO`; None where not set."""
    chosen = os.environ.get("WINNOW_MODEL_INFO")
    if not chosen:
        return None
    folder = Path(chosen).expanduser()
    return folder / "model_info" if (folder / "model_info").is_dir() else folder


def missing_library(name: str, library: str) -> UsageError:
    """The error where an optional library is wanted and not installed."""
    return UsageError(
        f"{name} needs {library}, which is not installed: pip install 'winnow-bench[zoo]' "
        "(in a checkout: uv sync --extra zoo)"
    )


def find_file(
    name: str, places: Sequence[Path], fetch: Callable[[Path], object] | None = None
) -> Path:
    """The first of some places at which there is a file; else it is fetched into the first.

    Args:
        name: of the defense, for errors.
        places: files, the one in the folder of models first.
        fetch: downloads to a path; None where nothing can be downloaded.

    Raises:
        CheckpointError: it is nowhere, and cannot be downloaded.
    """
    for place in places:
        if place.is_file():
            return place
    wanted, *others = places
    reason = "nothing is known to download them from"
    if fetch is not None:
        unfinished = wanted.with_name(f".{wanted.name}.{os.getpid()}.part")
        try:
            wanted.parent.mkdir(parents=True, exist_ok=True)
            fetch(unfinished)
            if unfinished.stat().st_size == 0:
                raise OSError("nothing arrived")
            unfinished.replace(wanted)
            return wanted
        except Exception as error:  # noqa: BLE001 - each library raises its own
            first = " ".join(str(error).split())
            reason = f"{type(error).__name__}: {first[:100]}{'…' * (len(first) > 100)}"
        finally:
            unfinished.unlink(missing_ok=True)
    nor = "".join(f", nor {place}" for place in others)
    raise CheckpointError(
        f"there are no weights of {name}: no file {wanted}{nor}, and they cannot be downloaded "
        f"({reason}); put the file there, set WINNOW_MODELS to the folder of models (now "
        f"{models_folder()}), or name a file: --checkpoint '{name}=PATH'"
    )


def identifier(name: str) -> str:
    """A library's name of a model, which must not become a path.

    Raises:
        UsageError: it has other characters than letters, digits, dots, hyphens and underscores.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UsageError(f"{name!r} has to be letters, digits, dots, hyphens and underscores")
    return name


def unwrap(content: Any) -> Any:
    """The `state_dict` in what a file holds."""
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            others = [name for name in content if name != key and _is_state_dict(content[name])]
            if others and _is_state_dict(content[key]):
                warnings.warn(
                    f"a file holds several sets of weights ({key}, {', '.join(others)}): {key} is "
                    f"taken; another one by --checkpoint 'NAME=PATH#{others[0]}'",
                    InputNotice,
                    stacklevel=2,
                )
            return unwrap(content[key])
    return content


def _is_state_dict(content: Any) -> bool:
    """Whether it is names to tensors."""
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(hasattr(value, "shape") for value in content.values())
    )


def fit(content: Any, module: nn.Module, *, ignored: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """A `state_dict` for a module from one whose names differ by a prefix.

    Constants that the module sets itself are taken from it where the file has none. Everything
    else has to be there.

    Args:
        content: what a file of weights holds.
        module: with the names that are wanted.
        ignored: beginnings and endings of names that the file may have beyond those of the module.

    Raises:
        CheckpointError: the file holds no `state_dict`.
    """
    state = unwrap(content)
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"a file of weights has to hold a state_dict, names to tensors; got "
            f"{type(state).__name__}"
        )
    wanted = {name for name, _ in module.named_parameters()}
    for candidate in _spellings(dict(state), module):
        if wanted <= candidate.keys():
            return _completed(candidate, module, ignored)
    return dict(state)  # loading it tells what is missing


def _spellings(state: dict[str, Tensor], module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The same tensors under the names that other wrappers would give them."""
    bare = [state]
    for prefix in _PREFIXES:
        bare.append({name.removeprefix(prefix): tensor for name, tensor in bare[-1].items()})
    for names in bare:
        yield names
        yield {f"model.{name}": tensor for name, tensor in names.items()}
    for names in bare:
        renamed = _renamed(names, module)
        yield renamed
        yield {f"model.{name}": tensor for name, tensor in renamed.items()}


def _renamed(state: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """By the filter that timm keeps beside an architecture, for names of its older versions."""
    import torch

    inner = getattr(module, "model", module)
    rename = getattr(sys.modules.get(type(inner).__module__), "checkpoint_filter_fn", None)
    if rename is None or not isinstance(inner, torch.nn.Module):
        return state
    try:
        return dict(rename(dict(state), inner))
    except Exception:  # noqa: BLE001 - not names that it knows
        return state


def _completed(
    state: dict[str, Tensor], module: nn.Module, ignored: tuple[str, ...]
) -> dict[str, Tensor]:
    own = module.state_dict()
    constants = {name: t for name, t in own.items() if name.rpartition(".")[2] in _CONSTANTS}
    kept = {
        name: tensor
        for name, tensor in state.items()
        if name in own or not (name.startswith(ignored) or name.endswith(ignored))
    }
    return {**constants, **kept}
