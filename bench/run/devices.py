"""What computes: the devices of this machine or of a cluster, and the processes on them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import UsageError
from bench.matrix.processes import cores
from bench.record.provenance import device_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.run.config import RunConfig

#: Of drivers of GPUs that torch knows on Linux, NVIDIA's, AMD's and that of a guest of Windows: the
#: file that is there where one is.
DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
#: Worker processes where nothing is said, at most: each holds about 1 GB.
MAX_WORKERS = 8


def resolve_device(text: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:1` to a device that is there.

    Raises:
        UsageError: not a device, or not on this machine.
    """
    import torch

    written = text.strip().lower()
    if written == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if written in ("cpu", "cpu:0"):
        return "cpu"
    kind, colon, index = written.partition(":")
    if kind != "cuda" or not re.fullmatch("[0-9]{1,4}" if colon else "", index):
        raise UsageError(f"unknown device {text!r}; allowed: auto, cpu, cuda, cuda:0, cuda:1, …")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise UsageError(f"no device {text!r} here: this machine has {count} CUDA device(s)")
    return f"cuda:{index or 0}"


def surely_cpu(text: str) -> bool:
    """Whether a device is the CPU, as far as that is known without torch, which takes seconds."""
    written = text.strip().lower()
    return written in ("cpu", "cpu:0") or (
        written == "auto" and not any(Path(driver).exists() for driver in DRIVERS)
    )


def resolve_devices(text: str) -> tuple[str, ...]:
    """One device or several GPUs of one kind: `cpu`, `cuda:0,cuda:1`, `cuda:all`.

    Raises:
        UsageError: not a device, not on this machine, one twice, or of several kinds: their last
            digits differ.
    """
    import torch

    words = [word.strip().lower() for word in text.split(",")]
    if words == ["cuda:all"]:
        resolve_device("cuda")
        words = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    found = [resolve_device(word) for word in words]
    if len(found) == 1:
        return (found[0],)
    if "cpu" in found or len(set(found)) < len(found):
        raise UsageError(
            f"several devices have to be different GPUs, such as cuda:0,cuda:1 (got {text!r}); "
            "--workers sets how many processes share them"
        )
    names = {device: device_name(device) for device in found}
    if len(set(names.values())) > 1:
        told = ", ".join(f"{device} is a {name}" for device, name in names.items())
        raise UsageError(
            f"GPUs of several kinds round differently, and a run has to be of one: {told}; name "
            "those of one kind"
        )
    return tuple(found)


def processes(config: RunConfig, devices: Sequence[str]) -> int:
    """The processes that guests are asked in, usually one for each core or GPU; 0: this one.

    Raises:
        UsageError: a timeout where there is nothing that could be ended; no processes where
            several devices, or a cluster, need some.
    """
    if config.executor != "local":
        from bench.matrix.cluster import places_on

        if config.workers == 0:
            raise UsageError("--workers 0 is this process, and no cluster: leave it out")
        return config.workers or places_on(config.executor, devices[0])
    mine = min(cores(), MAX_WORKERS)
    usual = mine if devices[0] == "cpu" else len(devices)
    count = usual if config.workers is None else config.workers
    if not count and len(devices) > 1:
        raise UsageError(
            f"--workers 0 is this process, which computes on one device (got {', '.join(devices)}"
            "): leave it out for one process each"
        )
    if config.timeout and not count:
        raise UsageError(
            f"--timeout {config.timeout:g} needs worker processes, which can be ended: give "
            "--workers 1 or more"
        )
    return count


def devices_of(config: RunConfig) -> tuple[str, ...]:
    """What computes: devices of this machine, or what each worker of a cluster has."""
    if config.executor == "local":
        return resolve_devices(config.device)
    from bench.matrix.cluster import device_on

    return (device_on(config.executor, config.device),)
