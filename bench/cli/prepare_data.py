"""`prepare-data`: decode once what runs will read."""

from __future__ import annotations

from typing import Annotated

import typer

from bench.cli import options


def prepare_data(
    dataset: options.Dataset,
    classes: options.Classes = "",
    n: Annotated[
        int | None, typer.Option(help="Examples, those that run takes (default 100).", min=1)
    ] = None,
) -> None:
    """Choose and decode the examples of a data set that `run` will evaluate, once for all runs.

    Example: python -m bench prepare-data --dataset 'folder:val[preset=imagenet]' --n 5000

    `run` does this by itself; here it is done before a GPU waits for it. Many large images are kept
    in a file of the cache ($WINNOW_CACHE, or ~/.cache/winnow), which can be deleted whenever no run
    uses it. Interrupted, the same command goes on where it was.
    """
    from bench.cli.progress import DataProgress
    from bench.data import open_dataset
    from bench.data.mapped import MappedExamples
    from bench.data.reading import with_classes
    from bench.run.config import DEFAULT_N

    said = "what was decoded is kept; the same command goes on"
    with options.interruptible(said), DataProgress(options.notes()) as progress:
        examples = open_dataset(with_classes(dataset, classes)).choose(
            "test", n or DEFAULT_N, fewer=n is None, on_progress=progress.update
        )
    shape = "x".join(map(str, examples.shape))
    options.echo(
        f"{len(examples):,} examples of {examples.name}, {shape}, digest {examples.digest}"
    )
    if isinstance(examples, MappedExamples):
        options.echo(f"kept in {examples.mapped.path} ({examples.mapped.size / 1e9:.2g} GB)")
    else:
        options.echo("small enough to be decoded by each run: nothing is kept")
