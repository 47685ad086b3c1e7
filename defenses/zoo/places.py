"""Where weights lie on this machine, and how they get there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


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
