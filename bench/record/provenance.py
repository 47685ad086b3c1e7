"""Where a number comes from: versions, commit, device, command."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

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
