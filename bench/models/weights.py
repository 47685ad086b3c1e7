"""Weights: their digest, and reading files that nobody vouches for.

Nothing in a file is ever executed: it is safetensors, or a torch file that loads with
`weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from bench.data.foreign import what_is
from bench.errors import CheckpointError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from torch import Tensor, nn


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of a module's `state_dict`, sorted.

    Of what is there no tensor (the dtype of a quantised module) what it says of itself counts.

    Raises:
        ModelError: weights that hold no numbers yet.
    """
    import torch

    digest = hashlib.sha256()
    for name, value in _entries(module.state_dict()):
        if not isinstance(value, torch.Tensor):
            digest.update(repr((name, plain_repr(value))).encode())
            continue
        tensor = _filled(name, value)
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _entries(state: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The entries of a `state_dict` by name; packed ones (quantised modules) one by one."""
    for name, value in sorted(state.items()):
        if isinstance(value, (tuple, list)):
            yield from _entries({f"{name}.{place}": each for place, each in enumerate(value)})
        elif isinstance(value, dict):
            yield from _entries({f"{name}.{key}": each for key, each in value.items()})
        else:
            yield name, value


def _filled(name: str, tensor: Tensor) -> Tensor:
    """A tensor of weights on the CPU, its numbers alone."""
    from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

    if tensor.is_meta or isinstance(tensor, UninitializedTensorMixin):
        raise ModelError(
            f"the weights {name!r} hold no numbers yet: materialise the model first "
            "(`model.to_empty(device='cpu')` and `load_state_dict`, or for lazy layers one call)"
        )
    return tensor.detach().cpu()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The `state_dict` on the CPU, contiguous, nothing shared."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }


def _bytes_of(tensor: Tensor) -> bytes:
    import torch

    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.is_quantized:
        scales = tensor.q_per_channel_scales() if tensor.qscheme() in (
            torch.per_channel_affine, torch.per_channel_affine_float_qparams
        ) else torch.tensor([tensor.q_scale(), tensor.q_zero_point()])  # fmt: skip
        return _bytes_of(tensor.int_repr()) + _bytes_of(scales)
    data: bytes = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def file_and_part(path: Path) -> tuple[Path, str]:
    """Take `FILE#PART` apart: the file, and which of several sets of weights in it; else empty."""
    name, mark, part = path.name.rpartition("#")
    if not (mark and name and part) or path.is_file():
        return path, ""
    return path.with_name(name), part


def plain_repr(value: object) -> str:
    """What a value says of itself, but for where it lies in memory."""
    try:
        return re.sub(r"0x[0-9a-fA-F]+", "0x", repr(value))
    except Exception:  # noqa: BLE001 - anybody's class may raise anything
        return type(value).__name__


def read_content(path: Path) -> Any:
    """What a file of weights holds, tensors on the CPU.

    Raises:
        CheckpointError: it cannot be read without executing what is in it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        if data[8:9] == b"{":  # safetensors: eight bytes of length, then JSON
            from safetensors.torch import load

            return load(data)
        import torch

        with warnings.catch_warnings(action="ignore"):  # of pickles that it then refuses
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file makes a reader raise
        raise CheckpointError(
            f"{path} is not a checkpoint: it is neither safetensors nor a torch file that loads "
            f"with weights_only=True ({_why(path, str(error), error)}); nothing in it was executed"
        ) from error


def _why(path: Path, text: str, error: Exception) -> str:
    """Why a file cannot be read safely, and what to do, in one plain line."""
    own = "where you trust it, load it yourself and torch.save(model.state_dict(), 'weights.pt')"
    if found := re.search(r"GLOBAL ([\w.]+)", text):
        if found[1].startswith("numpy"):
            return f"beside tensors it holds numbers of numpy's, {found[1]}: {own}"
        return f"beside tensors it holds an object, {found[1]}: {own}"
    if "TorchScript" in text:
        return "it is TorchScript: load it by torch.jit.load in a function, file:PATH.py:FUNCTION"
    kind = what_is(path).partition(": ")[0]
    if "pickle" in kind:
        return f"{kind}: {own}"
    return kind if kind and "torch.save" not in kind else first_line(error)


def first_line(error: Exception) -> str:
    """What an error says, in one line without a terminal's colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return f"{type(error).__name__}: {plain.splitlines()[0] if plain else ''}"
