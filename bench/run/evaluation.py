"""`bench.evaluate`: anybody's model, from a notebook or a program."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bench import data, registry
from bench.api import Examples
from bench.errors import DataError, ModelError, UsageError
from bench.matrix.apart import apart, here
from bench.matrix.patience import Patience
from bench.matrix.processes import COPY
from bench.models.ambient import plain_torch
from bench.models.contenders import Contender, key_of
from bench.models.guests import lent, own_copy
from bench.models.manner import dtype_of, first_answer
from bench.models.outputs import count_classes
from bench.models.weights import plain_repr, weights_digest
from bench.record.files import digest_of
from bench.record.schema import DefenseRecord
from bench.record.store import open_run
from bench.run import Result, arguments, run
from bench.run.brought import labelled
from bench.run.config import RunConfig
from bench.run.devices import resolve_device
from bench.run.prepare import Prepared, dataset_record, setting_of
from bench.run.progress import RunProgress
from bench.run.result import Held
from bench.threat import Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from fractions import Fraction

    import torch
    from torch import Tensor, nn

    from bench.matrix.fill import Observer
    from bench.record.schema import Sweep

#: Of the first batch that a model is asked about, and the most classes it may have.
PROBED, MOST_CLASSES = 32, 10**6
#: The label that data sets of torchvision give to what has no class.
IGNORED = 255


def evaluate(
    model: nn.Module,
    inputs: Any,
    labels: Any = None,
    *,
    norm: str | float = "Linf",
    epsilons: str | float | Fraction | Iterable[str | float | Fraction] = ("8/255",),
    attacks: str | Iterable[str] = "standard",
    name: str = "model",
    class_names: Iterable[str] | Mapping[int, str] | None = None,
    n: int | None = None,
    seed: int = 0,
    device: str | int | torch.device | None = "auto",
    batch_size: int | None = None,
    shard_size: int | None = None,
    out: str | Path | None = None,
    headline: str | float | Fraction | None = None,
    examine: bool | Literal["each"] = True,
    escalate: bool = True,
    budget: int | None = None,
    escalation_budget: int | None = None,
    sweep: Sweep = "bracket",
    workers: int = 0,
    timeout: float | None = None,
    progress: bool = True,
) -> Result:
    """Evaluate a model as `python -m bench run` would.

    The model is copied, put in eval mode and frozen; the one passed in stays as it is, and so do
    the inputs, torch's settings and the global generators, whatever they are: inside, gradients
    are recorded, nothing is cast on its own and float32 is computed in full. What the model holds
    and cannot be copied (a lock, a writer) is shared, and a warning says so.

    What it and the attacks raise, and be it `SystemExit`, is a failed cell; but in this process,
    where they run with no workers, nothing helps against one that kills it, or does not come back.

    Args:
        model: float32 (N, C, H, W) in [0, 1] to logits (N, classes). One in half or double
            precision gets its own dtype, one of a fixed batch size batches of that size.
        inputs: floating point in [0, 1], (N, C, H, W): a tensor, an array, a frame, or a list of
            images; or what holds the labels too: a DataLoader, a Dataset, a pair. Channels that
            can only be last are put first, which a notice says.
        labels: whole numbers in [0, classes), (N,), of whatever type, one-hot rows, or names out of
            `class_names`; None where `inputs` holds them.
        norm: `Linf`, `L2` or `L1`, in any case; `inf`, 2 and 1 as well.
        epsilons: as written (`"8/255"`) or a number, each greater than 0; one or several.
        attacks: attack and suite names, separated by commas or in a list.
        name: of the model in summary and tables.
        class_names: one per class; their numbers where None.
        n: how many of the examples, a fixed and class-balanced subset; all where None.
        seed: of all attacks.
        device: `auto`, `cpu`, `cuda` or `cuda:1`, or a `torch.device`.
        batch_size: largest forward pass; outcomes do not depend on it.
        shard_size: examples attacked together, part of what a result depends on; where None 50 on
            the CPU, 100 where an image has at most 256 values, and 500 on a GPU.
        out: folder of runs to store this one in, so that it can be continued and verified; nothing
            is kept on the disk where None. A model is known by its weights and by what it answers:
            one that answers otherwise has a run of its own.
        headline: of the epsilons, the one that ranks and is examined; the largest where None.
        examine: whether to examine the model as well as attack it: evidence and verdict. At the
            headline epsilon; `"each"` does so at every one.
        escalate: whether failed evidence asks for stronger attacks.
        budget: passes to spend in all; what does not fit is marked incomplete.
        escalation_budget: passes that escalation may spend at an epsilon; 15,000 per example where
            None.
        sweep: `each` attacks every epsilon by itself; `bracket` infers that what survives the last
            attacks at one survives below, and checks that.
        workers: processes that ask the model, copies of this one (`fork`), on the CPU alone and
            where no GPU was used before; 0 for this process.
        timeout: seconds that a worker may take for a task; 0 for no end, and where None 20 times
            what its passes should, at least 600.
        progress: whether to show how it goes, live in a terminal or in a notebook's cell; nothing
            is shown elsewhere.

    Returns:
        A notebook shows it as a card. `.worst_case` and `.verdict` are of the headline epsilon,
        `.outcomes` is a pandas frame (one row per example, attack and epsilon), `.curve()` and
        `.gallery()` draw, `.adversarial(epsilon)` gives inputs, labels and attacks, `.summary` is
        the dictionary of `summary.json`; `.to_markdown()` gives the tables.

    Raises:
        DataError: inputs or labels are not what they have to be.
        ModelError: the model's output on them is not finite logits (N, classes), or it cannot be
            asked; the message says what it was given.
        UsageError: an unknown name or a value that is not allowed.
    """
    import torch

    if not isinstance(model, torch.nn.Module):
        raise ModelError(f"model has to be an nn.Module; got {_no_module(model)}")
    name = arguments.model_name(name)
    place = resolve_device(arguments.device(device))
    radii = arguments.epsilons(epsilons)
    config = RunConfig(
        defenses=(name,),
        attacks=arguments.attack_names(attacks),
        norm=Norm.parse(norm),
        seed=arguments.whole("seed", seed, least=0),
        batch_size=arguments.optional("batch_size", batch_size, least=1),
        shard_size=arguments.optional("shard_size", shard_size, least=1),
        workers=arguments.whole("workers", workers, least=0),
        timeout=arguments.seconds("timeout", timeout),
        headline=arguments.headline(headline, radii),
        examine=arguments.examine(examine),
        escalate=arguments.flag("escalate", escalate),
        budget=arguments.optional("budget", budget, least=1),
        escalation_budget=arguments.optional("escalation_budget", escalation_budget, least=0),
        sweep=sweep,
        command="bench.evaluate()",
    )
    shown = arguments.flag("progress", progress)
    folder = None if out is None else arguments.folder("out", out)
    count = arguments.optional("n", n, least=1)
    names = arguments.class_names(class_names)
    chosen = registry.create_attacks(config.attacks, config.norm)
    for epsilon in radii:
        ThreatModel(config.norm, epsilon)
    if config.workers:
        _check_copies(place)
    with contextlib.ExitStack() as until:
        until.enter_context(plain_torch(place))
        module = until.enter_context(lent(model))
        if folder is None:
            config = replace(config, out=Path(until.enter_context(tempfile.TemporaryDirectory())))
        else:
            config = replace(config, out=folder)
        given, numbers = labelled(inputs, labels, names)
        examples = _examples(given, numbers, names or _as_many_as(numbers))
        contender = contender_of(name, module)
        if names is None:
            probed = min(PROBED, config.batch_size or PROBED)
            probe = examples.inputs[:probed]
            asked = (module, probe, place, config.batch_size, examples.classes)
            limit = Patience(config.timeout).first
            classes = (
                apart(_count_classes, *asked, start=COPY, timeout=limit)
                if config.workers
                else here(_count_classes, *asked)
            )
            names = list(map(str, range(classes)))
            examples = _examples(given, numbers, names)
        examples = data.subset(examples, count)
        prepared = Prepared(
            config=config,
            examples=examples,
            dataset=dataset_record(examples, "", None),
            setting=setting_of(config, examples, radii, place),
            headline=data.headline(None, config.norm, radii, config.headline),
            contenders=[contender],
            attacks=chosen,
            device=place,
            own=True,
        )
        with _watched(prepared) if shown else contextlib.nullcontext() as observer:
            result = run(prepared, observer)
        if folder is None:  # what is on the disk goes with this block
            store, record = open_run(result.folder or prepared.folder)
            result = replace(result, folder=None, held=Held.of(store, record, examples))
    return result


def _no_module(given: Any) -> str:
    """What is brought instead of a module, and what to do about it."""
    import torch

    if isinstance(given, type) and issubclass(given, torch.nn.Module):
        return f"the class {given.__name__}: give what {given.__name__}(…) makes"
    return (
        f"{type(given).__name__}: put it into the forward of an nn.Module that has the network as "
        "a submodule (one that a function only closes over would be called as it is, and neither "
        "copied nor put in eval mode)"
    )


def _watched(prepared: Prepared) -> AbstractContextManager[Observer | None]:
    """A live bar in a terminal or a notebook's cell; nothing elsewhere.

    Nothing of it ticks by itself while processes are forked.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not (console.is_terminal or console.is_jupyter):
        return contextlib.nullcontext()
    return RunProgress.of(console, prepared, ticking=not prepared.workers)


def _as_many_as(labels: Tensor) -> Sequence[Any]:
    """Stand-ins for the names of all classes that labels name, until the model has been asked."""
    whole = labels.numel() and not (labels.is_floating_point() or labels.is_complex())
    return range(min(max(int(labels.max()) + 1, 2), MOST_CLASSES) if whole else 2)


def _examples(inputs: Tensor, labels: Tensor, names: Sequence[Any]) -> Examples:
    """The examples, checked.

    Raises:
        DataError: they are not what they have to be, or some are marked as having no class.
    """
    odd = labels[labels >= len(names)]
    if odd.numel() and bool((odd == IGNORED).all()):
        raise DataError(
            f"labels have to be in 0 … {len(names) - 1} for {len(names)} classes; {odd.numel()} "
            f"are {IGNORED}, torchvision's mark for what is to be ignored: leave those examples out"
        )
    return Examples.of(inputs, labels, names, "inputs")


def _check_copies(device: str) -> None:
    """Refuse workers where a copy of this process could not compute."""
    import torch

    used = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if device != "cpu" or used or COPY != "fork":
        raise UsageError(
            "workers are copies of this process (fork), which neither use a GPU nor come after one "
            "was used: leave workers=0, or give device='cpu' in a new process; "
            "`python -m bench run --defense file:PATH.py:FUNCTION` has workers everywhere"
        )


def _count_classes(
    say: Callable[[str], None],
    module: nn.Module,
    inputs: Tensor,
    device: str,
    batch_size: int | None,
    named: int,
) -> int:
    say("the model")
    output = first_answer(module.to(device), inputs.to(device), batch_size)
    return count_classes(output, len(inputs), named)


def contender_of(name: str, module: nn.Module) -> Contender:
    """A module that a program has made, ready to be asked."""
    network, digest = type(module).__name__, weights_digest(module)
    structure = digest_of(plain_repr(module))
    identity = {"network": network, "weights": digest, "structure": structure}
    record = DefenseRecord(
        key=key_of(name, identity),
        network=network,
        weights_digest=digest,
        checkpoint="passed by the program",
        dtype=str(dtype_of(module)).removeprefix("torch."),
    )
    return Contender(name, identity, record, functools.partial(own_copy, module))
