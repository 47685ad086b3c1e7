"""A command asked again: answered from its run's files where all that it follows from is there.

A model is known by what it answers, so that a run asks it again before it goes on. The answers
themselves follow from code, weights, data, packages and the processor; where the bytes of all of
these are what they were, and the run's files as well, nothing is left to ask. So only commands are
answered that use nothing but what comes with Winnow, besides files of weights: what a plugin of
somebody else's does may follow from anything, and it is always asked.
"""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench import registry
from bench.data import open_dataset
from bench.errors import StoreError
from bench.models.checkpoints import USER_FOLDER, record_path
from bench.models.weights import file_and_part
from bench.record.files import digest_of, digest_of_file, read_bytes
from bench.record.provenance import device_name, instructions_on
from bench.record.runs import stored_summary
from bench.record.store import RunStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from bench.record.schema import RunRecord
    from bench.run.config import RunConfig

#: What of a command its answer does not follow from.
BESIDE = ("command", "out")
#: What variables of the environment begin with that may change an answer.
VARIABLES = ("WINNOW_", "TORCH", "PYTORCH", "CUDA", "CUBLAS", "ATEN_", "MKL_", "OMP_", "NVIDIA_")
#: Where Linux has its accelerators.
ACCELERATORS = ("nvidia[0-9]*", "kfd", "dxg")


class Answer(NamedTuple):
    """What a command gets without computing anything."""

    summary: dict[str, Any]
    """The dictionary of `summary.json`."""
    folder: Path
    """Of the run."""


def question(config: RunConfig) -> str:
    """Digest of what a command asks, and of all that its answer follows from.

    Returns:
        Empty where it may follow from more than can be looked at: plugins that do not come with
        Winnow, data and models from elsewhere, an accelerator, a cluster; and with `--fresh`, which
        asks anew.
    """
    if config.fresh or config.executor != "local":
        return ""
    names = [*config.defenses, config.attacks]
    foreign = registry.defenses.foreign() or registry.attacks.foreign()
    if foreign or any(":" in name for name in names) or not _embedded(config.dataset):
        return ""
    if not (config.device == "cpu" or (config.device == "auto" and _no_accelerator())):
        return ""
    asked = {name: value for name, value in vars(config).items() if name not in BESIDE}
    given = [file_and_part(path)[0] for path in config.checkpoints.values()]
    try:
        return digest_of(
            {
                "asked": {name: str(value) for name, value in asked.items()},
                "given": [_digests((path, record_path(path))) for path in given],
                "trained": _digests(sorted(USER_FOLDER.glob("*"))),
                "winnow": _digests(_own_files()),
                "packages": _packages(),
                "environment": {k: v for k, v in os.environ.items() if k.startswith(VARIABLES)},
                "machine": [sys.version, platform.platform()],
                "processor": [device_name("cpu"), instructions_on("cpu")],
            }
        )
    except OSError:  # a file that cannot be read: whoever needs it will say so
        return ""


def answered(asked: str, out: Path) -> Answer | None:
    """The answer of the run whose last command was this very one; None where it has to be asked.

    Nothing of a run is taken whose files are not as its manifest says.

    Args:
        asked: the `question` of the command.
        out: the folder of runs.
    """
    paths = sorted(out.glob("*/run.json")) if asked else []
    try:
        found = [path.parent for path in paths if asked.encode() in read_bytes(path)]
        if len(found) != 1:
            return None
        (folder,) = found
        RunStore(folder).check_plain()
        record = RunStore(folder).read_record()
        if record is None or record.question != asked:
            return None
        return Answer(stored_summary(folder), folder)
    except StoreError:
        return None


def finished(record: RunRecord, asked: str) -> RunRecord:
    """The record with the question that it answers, where all of its cells have their figures."""
    whole = record.status == "complete" and all(c.status in ("ok", "skipped") for c in record.cells)
    return record.model_copy(update={"question": asked if whole else ""})


def _embedded(dataset: str) -> bool:
    return open_dataset(dataset).embedded


def _no_accelerator() -> bool:
    """Whether `auto` is the CPU for sure."""
    devices = Path("/dev")
    return sys.platform == "linux" and not any(any(devices.glob(p)) for p in ACCELERATORS)


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of those that are files, by their path."""
    return {path.as_posix(): digest_of_file(path) for path in paths if path.is_file()}


def _own_files() -> Iterator[Path]:
    """Winnow's: code, committed weights, embedded data."""
    for place, folders, names in os.walk(Path(__file__).parents[1], followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        yield from (Path(place, name) for name in names)


def _packages() -> list[str]:
    """The installed distributions with their versions, as their folders are called."""
    places = (Path(place or ".") for place in dict.fromkeys(sys.path))
    return sorted(path.name for place in places for path in place.glob("*.*-info"))
