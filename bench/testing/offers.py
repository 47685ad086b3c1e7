"""Whether the models that a scheme offers can be built here, without their weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import registry
from bench.errors import WinnowError

if TYPE_CHECKING:
    from bench.api import Offer


def build_fault(offer: Offer, *, on_cpu: bool = True) -> str | None:
    """Why a model cannot be built, in one line; None where it can.

    It is built on torch's meta device, where tensors have shapes and no numbers, which takes
    neither time nor memory.

    Args:
        offer: the model.
        on_cpu: whether to try again on the CPU what needs numbers to be built.
    """
    import torch

    fault = None
    for device in ("meta", "cpu") if on_cpu else ("meta",):
        defense = registry.defenses.create(offer.name)
        try:
            with torch.device(device):
                defense.build(
                    network=defense.network(shape=offer.shape),
                    shape=offer.shape,
                    classes=offer.classes,
                )
        except WinnowError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            first = next(iter(str(error).strip().splitlines()), "")
            fault = f"{type(error).__name__}: {first}"
        else:
            return None
    return fault
