"""`run.json`: what a run was asked, what it ran on, and where its cells are.

Readers ignore keys that they do not know, so that a newer writer does not break an older reader.

Where a number comes from: versions, commit, device, command.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import StoreError

SCHEMA_VERSION = 1


Status = Literal["ok", "failed", "skipped", "incomplete"]


Scope = Literal["all", "remaining", "evidence", "check"]


#: `check`: what a sweep inferred of a cell of scope `remaining`, attacked after all.
Source = Literal["attacked", "inferred"]


Sweep = Literal["each", "bracket"]


#: What the names of attacks begin with that are files of adversarial examples from elsewhere.
EXTERNAL = "external:"


class Record(BaseModel):
    """A frozen part of a file that is read back."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class CellRecord(Record):
    """One cell: where its outcomes are, or why there are none."""

    defense: str
    attack: str
    epsilon: str
    """As written; `0` for the clean predictions."""
    key: str
    """Its folder under `cells/`; empty where it was skipped."""
    scope: Scope = "all"
    source: Source = "attacked"
    """`inferred`: examples were left out whose outcome follows from another epsilon."""
    round: int = 0
    """Of the escalation that asked for it; 0 where the user or the examination did."""
    status: Status = "incomplete"
    reason: str = ""
    """Why it failed or was skipped."""


class DefenseRecord(Record):
    """One defense of a run."""

    key: str
    """Its folder under `adversarial/`."""
    network: str
    weights_digest: str
    checkpoint: str
    """The file's name, or a sentence on where the weights came from."""
    twin: str | None = None
    control: bool = False
    """Here as somebody's twin, at the headline epsilon alone, without being asked for."""
    published: dict[str, Any] | None = None
    """What others published of it for this data and norm: `bench.api.Published`."""


class DatasetRecord(Record):
    """The examples of a run."""

    name: str
    """As in tables."""
    source: str
    """As written on the command line; empty where a program passed the examples itself."""
    family: str | None
    digest: str
    n: int
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]


class RunRecord(Record):
    """The whole of `run.json`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    status: Literal["running", "complete", "interrupted", "failed"]
    dataset: DatasetRecord
    norm: str
    seed: int
    epsilons: list[str]
    """As written, ascending."""
    headline: str
    shard_size: int
    judging: dict[str, Any]
    """What decides whether a candidate counts: version, precision, kind of device."""
    defenses: dict[str, DefenseRecord]
    cells: list[CellRecord]
    provenance: dict[str, Any]
    examined: bool = False
    """Whether the defenses were examined as well as attacked."""
    suites: dict[str, list[str]] = {}
    """Suites all of whose attacks are in the run, with their attacks; `all` is none."""
    sweep: Sweep = "each"
    """How its commands went over their epsilons: `bracket` where any of them did."""
    limit: int | None = None
    """Passes that the last command could spend in all; None for as many as it took."""
    budget: int | None = None
    """Passes that escalation may spend on each defense; None where it was left out."""

    @classmethod
    def read(cls, content: Any, where: str) -> RunRecord:
        """Check what was read from a file.

        Raises:
            StoreError: of another schema, or damaged.
        """
        try:
            record = cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise StoreError(f"{where} is not a run record: {place}: {first['msg']}") from None
        if record.schema_version != SCHEMA_VERSION:
            raise StoreError(
                f"{where} has schema version {record.schema_version}; this Winnow reads "
                f"{SCHEMA_VERSION}"
            )
        return record


#: Distributions whose versions a run notes.
NOTED = ("winnow-bench", "torch", "torchvision", "foolbox", "pyautoattack", "numpy")


def version_of(distribution: str) -> str:
    """The installed version of a distribution, or `absent`."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def commit() -> str | None:
    """The commit of the checkout that runs, with `+` where it was changed; None outside one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                timeout=10,
                check=True,
            ).stdout.strip()
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain", "-uno"])
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if changes else "")


def device_name(device: str) -> str:
    """The processor or GPU that a device string names, as people call it."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance(*, device: str, command: str) -> dict[str, Any]:
    """What `run.json` keeps on the surroundings of a run."""
    return {
        "command": command,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "device_name": device_name(device),
        "versions": {name: version_of(name) for name in NOTED},
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def command_line() -> str:
    """The command as it was typed, without the folder of the interpreter."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    words = ["python -m bench" if program == "__main__.py" else program, *sys.argv[1:]]
    return " ".join(words)
