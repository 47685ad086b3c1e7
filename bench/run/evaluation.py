"""`bench.evaluate`: anybody's model, from a notebook or a program."""

from __future__ import annotations

import copy
import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench import data, registry
from bench.api import Examples
from bench.errors import ModelError, UsageError
from bench.record.schema import DefenseRecord
from bench.run import Result, run
from bench.run.prepare import (
    Prepared,
    RunConfig,
    dataset_record,
    resolve_device,
    setting_of,
)
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    import numpy as np
    from torch import Tensor, nn

    from bench.models.contenders import Contender
    from bench.record.schema import Sweep


def evaluate(
    model: nn.Module,
    inputs: Tensor | np.ndarray,
    labels: Tensor | np.ndarray,
    *,
    norm: str = "Linf",
    epsilons: Sequence[str | float | Fraction] = ("8/255",),
    attacks: str = "standard",
    name: str = "model",
    class_names: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    shard_size: int | None = None,
    out: str | Path | None = None,
    headline: str | float | Fraction | None = None,
    examine: bool | Literal["each"] = True,
    escalate: bool = True,
    budget: int | None = None,
    escalation_budget: int | None = None,
    sweep: Sweep = "bracket",
) -> Result:
    """Evaluate a model as `python -m bench run` would.

    The model is copied, put in eval mode and frozen; the one passed in stays as it is.

    Args:
        model: float32 (N, C, H, W) in [0, 1] to logits (N, classes).
        inputs: floating point in [0, 1], (N, C, H, W).
        labels: whole numbers in [0, classes), (N,).
        norm: `Linf`, `L2` or `L1`.
        epsilons: as written (`"8/255"`) or numbers, each greater than 0.
        attacks: attack and suite names, separated by commas.
        name: of the model in summary and tables.
        class_names: one per class; their numbers where None.
        seed: of all attacks.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        batch_size: largest forward pass; outcomes do not depend on it.
        shard_size: examples attacked together, part of what a result depends on; where None 50 on
            the CPU and 500 on a GPU.
        out: folder of runs to store this one in, so that it can be continued and verified; nothing
            is kept on the disk where None.
        headline: of the epsilons, the one that ranks and is examined; the largest where None.
        examine: whether to examine the model as well as attack it: evidence and verdict. At the
            headline epsilon; `"each"` does so at every one.
        escalate: whether failed evidence asks for stronger attacks.
        budget: passes to spend in all; what does not fit is marked incomplete.
        escalation_budget: passes that escalation may spend at an epsilon; 15,000 per example where
            None.
        sweep: `each` attacks every epsilon by itself; `bracket` infers that what survives the last
            attacks at one survives below, and checks that.

    Returns:
        `.summary` (the dictionary of `summary.json`), `.outcomes` (a pandas frame, one row per
        example, attack and epsilon) and `.to_markdown()`.

    Raises:
        DataError: inputs or labels are not what they have to be.
        ModelError: the model's output on them is not finite logits (N, classes).
        UsageError: an unknown name or a value that is not allowed.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model has to be an nn.Module; got {type(model).__name__}")
    place = resolve_device(device)
    threat_norm = Norm.parse(norm)
    chosen = registry.create_attacks(attacks, threat_norm)
    if isinstance(epsilons, str):
        raise UsageError(f"epsilons has to be a list, such as [{epsilons!r}]")
    radii = Epsilon.parse_many(epsilons)
    for epsilon in radii:
        ThreatModel(threat_norm, epsilon)
    module = copy.deepcopy(model).eval()
    given = torch.as_tensor(inputs)
    names = class_names or [str(i) for i in range(_count_classes(module, given, place))]
    examples = Examples.of(given, torch.as_tensor(labels), names, "inputs")
    with tempfile.TemporaryDirectory() as scratch:
        config = RunConfig(
            defenses=(name,),
            attacks=attacks,
            norm=threat_norm,
            seed=seed,
            batch_size=batch_size,
            shard_size=shard_size,
            workers=1,
            out=Path(out if out is not None else scratch),
            headline="" if headline is None else Epsilon.parse(headline).text,
            examine=examine,
            escalate=escalate,
            budget=budget,
            escalation_budget=escalation_budget,
            sweep=sweep,
            command="bench.evaluate()",
        )
        prepared = Prepared(
            config=config,
            examples=examples,
            dataset=dataset_record(examples, "", None),
            setting=setting_of(config, examples, radii, place),
            headline=data.headline(None, threat_norm, radii, config.headline),
            contenders=[contender_of(name, module)],
            attacks=chosen,
            device=place,
        )
        result = run(prepared)
    return result if out is not None else replace(result, folder=None)


def _count_classes(module: nn.Module, inputs: Tensor, device: str) -> int:
    import torch

    with torch.no_grad():
        output = module.to(device)(inputs[:1].float().to(device))
    if not isinstance(output, torch.Tensor) or output.ndim != 2 or output.shape[1] < 2:
        shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise ModelError(f"the model has to return logits (N, classes ≥ 2); got {shape}")
    return int(output.shape[1])


def contender_of(name: str, module: nn.Module) -> Contender:
    """A module that a program has made, ready to be asked."""
    from bench.models.checkpoints import weights_digest
    from bench.models.contenders import Contender, key_of
    from bench.record.files import digest_of

    network, digest = type(module).__name__, weights_digest(module)
    identity = {"network": network, "weights": digest, "structure": digest_of(repr(module))}
    record = DefenseRecord(
        key=key_of(name, identity),
        network=network,
        weights_digest=digest,
        checkpoint="passed by the program",
    )
    return Contender(name, identity, record, functools.partial(copy.deepcopy, module))
