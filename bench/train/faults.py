"""What goes wrong while a defense is trained, in one line each: most of its code is somebody's."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from bench.errors import PluginError, UsageError, WinnowError, in_one_line, is_out_of_memory

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What a recipe or a model raises, with the last line of Python outside torch.

    Raises:
        PluginError: they raised something that is neither Winnow's nor the end of memory.
    """
    try:
        yield
    except WinnowError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        torchs = Path(torch.__file__).parent
        frames = traceback.extract_tb(error.__traceback__)
        place = [each for each in frames if torchs not in Path(each.filename).parents][-1]
        raise PluginError(
            f"the training ended: {in_one_line(error)} ({Path(place.filename).name}, line "
            f"{place.lineno})"
        ) from error


def check_loss(loss: object, recipe: str) -> None:
    """Refuse what no step of descent can be taken on.

    Raises:
        PluginError: it is no scalar tensor, or does not depend on the weights.
    """
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad:
        return
    got = type(loss).__name__
    if isinstance(loss, Tensor):
        got = f"shape {tuple(loss.shape)}, {'a' if loss.requires_grad else 'no'} gradient"
    raise PluginError(
        f"a loss of the recipe {recipe!r} has to be a scalar tensor that depends on the weights "
        f"(got {got})"
    )


def diverged(epoch: int, why: str) -> UsageError:
    """That no weights came of it."""
    return UsageError(
        f"the training diverged in epoch {epoch + 1}: {why}; try another --seed, or a recipe "
        "with a lower learning rate"
    )
