"""Where figures come from: versions, commit, device, command; and the surroundings of a shard."""

from __future__ import annotations

import datetime
import functools
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from bench.errors import printable
from bench.record.schema import Record

#: Distributions whose versions a run notes.
NOTED = ("winnow-bench", "torch", "torchvision", "foolbox", "pyautoattack", "numpy")


#: What Linux says of its processors.
PROCESSORS = Path("/proc/cpuinfo")
#: What the flags of a processor begin with that libraries choose their kernels by.
VECTORS = ("avx", "fma", "f16c", "amx", "asimd", "sve")
#: Variables of the environment that keep libraries from instructions that a processor has.
LIMITS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
    "OPENBLAS_CORETYPE",
    "NPY_DISABLE_CPU_FEATURES",
)

#: How images of shards and runs lay in memory that do not say.
AS_THEY_COME = "contiguous"


def layout_on(device: str) -> str:
    """How convolutions get their images on a kind of device, as torch names it: it moves digits."""
    return "channels_last" if device == "cpu" else AS_THEY_COME


@functools.cache
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


@functools.cache
def device_name(device: str) -> str:
    """The processor or GPU that a device string names, as people call it."""
    if device.startswith("cuda"):
        import torch

        return str(torch.cuda.get_device_name(device))
    return processor().get("model name") or platform.processor() or platform.machine()


@functools.cache
def instructions_on(device: str) -> str:
    """What libraries choose their kernels by on a processor: its model and vector instructions.

    Additions in another order round otherwise. A name does not tell: virtual machines give all
    processors of a maker one. Empty on a GPU, whose name does.
    """
    if device != "cpu":
        return ""
    said = processor()
    model = ("vendor_id", "cpu family", "model", "CPU implementer", "CPU part")
    flags = (said.get("flags") or said.get("Features", "")).split()
    return " ".join(
        [
            *(said[name] for name in model if name in said),
            *sorted(flag for flag in flags if flag.startswith(VECTORS)),
            *(f"{name}={os.environ[name]}" for name in LIMITS if name in os.environ),
        ]
    )


@functools.cache
def processor() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        lines = PROCESSORS.read_text().partition("\n\n")[0].splitlines()
    except OSError:
        return {}
    parts = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in parts}


@functools.cache
def noted_versions() -> dict[str, str]:
    """The installed versions of what a run notes."""
    return {name: version_of(name) for name in NOTED}


class Surroundings(Record):
    """Where a shard was computed: all that its last digits depend on, besides its cell's key."""

    device: str
    """Its kind, `cpu` or `cuda`."""
    device_name: str
    versions: dict[str, str]
    """Of the distributions in `NOTED`."""
    batch_size: int | None = None
    """Of the largest forward pass, as asked for or as memory allowed; None for any."""
    layout: str = AS_THEY_COME
    """See `layout_on`."""
    instructions: str = ""
    """See `instructions_on`; empty in shards that do not say."""

    @classmethod
    def of(cls, device: str, batch_size: int | None = None) -> Self:
        """Those of this process.

        Args:
            device: `cpu`, `cuda` or `cuda:1`.
            batch_size: of the largest forward pass.
        """
        kind = device.partition(":")[0]
        return cls(
            device=kind,
            device_name=device_name(device),
            versions=noted_versions(),
            batch_size=batch_size,
            layout=layout_on(kind),
            instructions=instructions_on(kind),
        )

    @classmethod
    def noted(cls, provenance: dict[str, Any]) -> Self:
        """Those in which a run ended: of shards that do not say."""
        return cls(
            device=str(provenance.get("device", "")).partition(":")[0],
            device_name=str(provenance.get("device_name", "")),
            versions=provenance.get("versions", {}),
            layout=str(provenance.get("layout", AS_THEY_COME)),
            instructions=str(provenance.get("instructions", "")),
        )

    def alike(self, other: Surroundings) -> bool:
        """Whether the same computation gives the same digits, in forward passes of one size."""
        return self.model_copy(update={"batch_size": other.batch_size}) == other


def provenance(device: str, where: Surroundings, command: str) -> dict[str, Any]:
    """What `run.json` keeps on where figures come from.

    Args:
        device: `cpu`, `cuda:0`.
        where: they were computed.
        command: as it was typed.
    """
    return {
        "command": command,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "device_name": where.device_name,
        "versions": where.versions,
        "layout": where.layout,
        "instructions": where.instructions,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def command_line() -> str:
    """The command as it was typed, without the folder of the interpreter."""
    program = Path(sys.argv[0]).name if sys.argv else ""
    words = ["python -m bench" if program == "__main__.py" else program, *sys.argv[1:]]
    return printable(" ".join(words))
