"""`train`: make the weights of defenses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.train import Progress as Report
    from bench.train import Trained

#: Seconds between two lines where there is no terminal.
QUIET_INTERVAL = 10.0


def train(
    defense: Annotated[
        str, typer.Option(help="Defenses, comma-separated, such as 'relu,kwta[gamma=0.2]'.")
    ],
    dataset: Annotated[
        str, typer.Option(help="digits, mnist, cifar10, …, parquet:PATH or folder:PATH.")
    ] = "digits",
    seed: Annotated[
        int, typer.Option(min=0, help="Of the weights, of the order, of the recipe's randomness.")
    ] = 0,
    epochs: Annotated[
        int | None, typer.Option(help="In place of the recipe's; its milestones move with them.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
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
    same weights. A checkpoint that is there already is not trained again.
    """
    from bench import registry
    from bench.data import open_dataset
    from bench.grammar import split_names
    from bench.preparation import resolve_device
    from bench.record.provenance import command_line
    from bench.train import train as execute

    names = split_names(defense)
    if not names:
        raise UsageError("no defense given; name one, such as --defense kwta")
    chosen = [registry.defenses.create(name) for name in names]
    source = open_dataset(dataset)
    where = resolve_device(device)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    try:
        for each in chosen:
            with TrainingProgress(Console(stderr=True), each.name) as progress:
                trained = execute(
                    each,
                    source,
                    seed=seed,
                    device=where,
                    out=out,
                    epochs=epochs,
                    fresh=fresh,
                    command=command_line(),
                    on_progress=progress.update,
                )
            console.print(_outcome(trained))
    except KeyboardInterrupt:
        console.print("interrupted: whole epochs are saved; the same command continues")
        raise typer.Exit(130) from None


class TrainingProgress:
    """A live line with loss, accuracy and time left; without a terminal, one line in 10 seconds."""

    def __init__(self, console: Console, name: str) -> None:
        self.console = console
        self.name = name
        self._last_line = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar = self._progress.add_task(name, total=None, figures="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, report: Report) -> None:
        """Show where the training stands."""
        figures = f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}"
        if report.accuracy is not None:
            figures += f"  train accuracy {report.accuracy:.3f}"
        self._progress.update(
            self._bar, total=report.epochs, completed=report.done, figures=figures
        )
        now = time.monotonic()
        if not self.console.is_terminal and now - self._last_line >= QUIET_INTERVAL:
            self._last_line = now
            self.console.print(f"{self.name}: {figures}", markup=False, highlight=False)


def _outcome(trained: Trained) -> str:
    """One line on what was made."""
    record = trained.record
    accuracy = f"clean accuracy {record.clean_accuracy:.4f} on {record.n} test examples"
    if trained.seconds == 0:
        return f"{record.defense}: {trained.path} is there already ({accuracy}); --fresh trains it"
    return f"{record.defense}: {trained.path} ({accuracy}, {trained.seconds:.0f} s)"
