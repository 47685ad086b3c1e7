"""`train`: make the weights of defenses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.train import Trained


def train(
    defense: options.Defense,
    dataset: options.Dataset = "digits",
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds", "--seed", help="Of weights, order and the recipe's randomness: 0, or 0,1,2."
        ),
    ] = "0",
    epochs: Annotated[
        int | None, typer.Option(help="In place of the recipe's; its milestones move with them.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="The defense whose weights for this data set to start from, such as relu-fast."
        ),
    ] = None,
    device: options.Device = "auto",
    out: Annotated[Path, typer.Option(help="Folder of the checkpoints.")] = Path(
        "results/checkpoints"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Start anew and write over, or continue.")
    ] = False,
) -> None:
    """Train defenses on a data set and save their checkpoints, which `run` then finds.

    Example: python -m bench train --defense kwta-at --dataset mnist

    The state is saved after every epoch: interrupted, the same command continues and ends in the
    same weights. A checkpoint that is there already is not trained again. The curve of a training
    is written to OUT/curves, and where the recipe holds validation examples out, the weights of
    the best epoch to OUT/best.
    """
    from bench import registry
    from bench.cli.progress import TrainingProgress
    from bench.data import open_dataset
    from bench.record.provenance import command_line
    from bench.registry.grammar import split_names
    from bench.run.devices import resolve_device
    from bench.train import TrainConfig
    from bench.train import train as execute

    names = split_names(defense)
    if not names:
        raise UsageError("no defense given; name one, such as --defense kwta")
    chosen = [registry.defenses.create(name) for name in names]
    source, where, numbers = (
        open_dataset(dataset),
        resolve_device(device),
        options.parse_seeds(seeds),
    )
    with options.interruptible("whole epochs are saved; the same command continues"):
        for each in chosen:
            made = []
            for seed in numbers:
                with TrainingProgress(options.notes(), each.name) as progress:
                    config = TrainConfig(seed, where, epochs, start, fresh, command_line())
                    trained = execute(each, source, config, out=out, on_progress=progress.update)
                options.echo(_outcome(trained))
                made.append(trained.record.clean_accuracy)
            if len(numbers) > 1:
                options.echo(f"{each.name}: {_together(made)}")


def _outcome(trained: Trained) -> str:
    """One line on what was made."""
    record = trained.record
    accuracy = f"clean accuracy {record.clean_accuracy:.4f} on {record.n} test examples"
    if trained.seconds == 0:
        return f"{record.defense}: {trained.path} is there already ({accuracy}); --fresh trains it"
    start = f"; started from {trained.start}" if trained.start else ""
    best = f"; best epoch: {trained.best}" if trained.best else ""
    return f"{record.defense}: {trained.path} ({accuracy}, {trained.seconds:.0f} s){start}{best}"


def _together(accuracies: Sequence[float]) -> str:
    """What several seeds have in common."""
    mean = sum(accuracies) / len(accuracies)
    return (
        f"clean accuracy {mean:.4f} over {len(accuracies)} seeds, "
        f"{min(accuracies):.4f} to {max(accuracies):.4f}"
    )
