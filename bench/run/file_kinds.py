"""What a file is that should hold adversarial examples and does not, and how to convert it.

Other tools save them under other names and in other formats. Names and shapes are told from headers
alone; nothing is executed, and no array is read.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

from bench.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ADVERSARIAL = "adversarial"

#: Names under which others keep what is `ADVERSARIAL` here, the likeliest first.
_NAMES = ("x_adv", "adv_inputs", "adv_complete", "adv_images", "adv", "advs", "images", "arr_0")

#: First bytes of files that are no container of arrays, and what they are.
_MAGIC = {
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"\x1f\x8b": "a compressed file (gzip)",
    b"MATLAB": "a MATLAB file",
    b"PK\x05\x06": "an empty archive",
}


def described(path: Path, shapes: Mapping[str, tuple[int, ...]], opened: str) -> str:
    """What a file of arrays holds instead, and the line that converts it.

    Args:
        path: of the file.
        shapes: of all its arrays, by name.
        opened: Python that opens it, in which `{}` is its path.
    """
    held = ", ".join(f"{printable(name)} {shape}" for name, shape in list(shapes.items())[:8])
    more = ", …" if len(shapes) > 8 else ""
    said = f"{path} has to hold an array `{ADVERSARIAL}`; it holds {held or 'nothing'}{more}"
    key = _likeliest(shapes)
    return f"{said}: {_conversion(path, opened, f'[{key!r}]')}" if key else said


def _likeliest(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """Which of these arrays are images: a name that others use, or the only one of four axes."""
    images = [name for name, shape in shapes.items() if len(shape) == 4]
    named = [name for name in _NAMES if name in images]
    if named:
        return named[0]
    return images[0] if len(images) == 1 else None


def _conversion(path: Path, opened: str, part: str) -> str:
    found = f"{opened.format(repr(str(path)))}{part}"
    return f"write them anew by numpy.savez('{ADVERSARIAL}.npz', {ADVERSARIAL}={found})"


def kind_of(path: Path, start: bytes) -> str | None:
    """A sentence on a file that is neither npz nor safetensors; None where nothing is known of it.

    Args:
        path: of the file.
        start: its first bytes, a hundred or more where it has them.
    """
    if start.startswith(b"\x93NUMPY"):
        return f"{path} is one array without a name: {_conversion(path, 'numpy.load({})', '')}"
    if start.startswith(b"PK\x03\x04"):
        return _zip_kind(path)
    if start.startswith(b"\x80") and start[1:2] in b"\x02\x03\x04\x05":
        return (
            f"{path} is a pickle or a torch file of an old format, which is not opened: load it "
            f"where it was made, and {_conversion(path, 'torch.load({})', '[…].numpy()')}"
        )
    if start[257:262] == b"ustar":
        return f"{path} is a tar archive: unpack it, and give the array in it as npz"
    known = [what for magic, what in _MAGIC.items() if start.startswith(magic)]
    return f"{path} is {known[0]}, neither npz nor safetensors" if known else None


def _zip_kind(path: Path) -> str | None:
    """A torch file, or any other archive that is no npz."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return None
    if any(name.endswith("/data.pkl") for name in names):
        return _torch_kind(path)
    if any(name.endswith(".npy") for name in names):
        return None
    held = ", ".join(map(printable, names[:5])) or "nothing"
    return f"{path} is a zip archive of {held}, no npz: give the array in it as npz"


def _torch_kind(path: Path) -> str:
    """What `torch.save` wrote: tensors by name, in a list, or one."""
    import torch

    opened = "torch.load({}, weights_only=True)"
    try:
        found: Any = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception:  # noqa: BLE001 - a foreign file makes a reader raise anything
        return (
            f"{path} is a torch file that holds more than tensors, which is not opened: load it "
            f"where it was made, and {_conversion(path, 'torch.load({})', '[…].numpy()')}"
        )
    if isinstance(found, torch.Tensor):
        convert = _conversion(path, opened, ".numpy()")
        return f"{path} is a torch file of one tensor {tuple(found.shape)}: {convert}"
    if isinstance(found, (list, tuple)):
        found = dict(enumerate(found))
    items = found.items() if isinstance(found, dict) else ()
    shapes = {key: tuple(t.shape) for key, t in items if isinstance(t, torch.Tensor)}
    held = ", ".join(f"{printable(str(key))} {shape}" for key, shape in list(shapes.items())[:8])
    likely = _likeliest({str(key): shape for key, shape in shapes.items()})
    key = next((repr(key) for key in shapes if str(key) == likely), "…")
    return (
        f"{path} is a torch file; it holds {held or type(found).__name__}: "
        f"{_conversion(path, opened, f'[{key}].numpy()')}"
    )
