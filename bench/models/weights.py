"""Weights: their digest, and reading them from files that nobody vouches for.

Nothing in a file is ever executed: it is safetensors, or a torch file that loads with
`weights_only=True`.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bench.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

#: Keys under which torch files may hold their state_dict.
_WRAPPERS = ("state_dict", "model", "net")


#: How many names of one fault an error shows.
_SHOWN = 3


def weights_digest(module: nn.Module) -> str:
    """SHA-256 over the names, dtypes, shapes and bytes of a module's `state_dict`, sorted."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors_of(module).items()):
        digest.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """The `state_dict` on the CPU, contiguous, nothing shared."""
    return {
        name: tensor.detach().cpu().contiguous().clone()
        for name, tensor in module.state_dict().items()
    }


def _bytes_of(tensor: Tensor) -> bytes:
    import torch

    data: bytes = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return data


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, on the CPU.

    Raises:
        CheckpointError: it cannot be read, or holds no weights.
    """
    return state_dict_of(path, read_content(path))


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
            f"with weights_only=True ({first_line(error)}); nothing in it was executed"
        ) from error


def state_dict_of(path: Path, content: Any) -> dict[str, Tensor]:
    """The tensors in what was read from `path`, without wrappers.

    Raises:
        CheckpointError: it holds no weights.
    """
    import torch

    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor)
        for name, tensor in content.items()
    ):
        raise CheckpointError(
            f"{path} is not a checkpoint: it has to hold a state_dict, names to tensors; "
            f"got {type(content).__name__}"
        )
    weights = dict(content)
    if weights and all(name.startswith("module.") for name in weights):
        weights = {name.removeprefix("module."): tensor for name, tensor in weights.items()}
    return weights


def check_fit(path: Path, weights: dict[str, Tensor], module: nn.Module) -> None:
    """Check that weights read from `path` can be loaded into a module.

    Raises:
        CheckpointError: names or shapes differ, or weights are not finite.
    """
    expected = module.state_dict()
    faults = []
    missing = [name for name in expected if name not in weights]
    unexpected = [name for name in weights if name not in expected]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    for fault, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("of another shape", misshapen),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            faults.append(f"{fault}: {', '.join(names[:_SHOWN])}{more}")
    if faults:
        raise CheckpointError(f"{path} is of another architecture ({'; '.join(faults)})")
    for name, tensor in weights.items():
        if not bool(tensor.isfinite().all()):
            raise CheckpointError(
                f"{path}: the weights {name!r} contain NaN or infinity; the training that made "
                "them diverged: train again with another seed or a lower learning rate"
            )


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
