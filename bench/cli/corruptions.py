"""`corruptions`: accuracy under common corruptions, by kind and severity."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli import options


def corruptions(
    defense: options.Defense,
    dataset: options.Dataset = "cifar10",
    n: Annotated[
        int | None, typer.Option(help="Images, in every kind and severity (default 100).", min=1)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of corruptions that are made.", min=0)] = 0,
    device: options.Device = "auto",
    batch_size: Annotated[int, typer.Option(help="Largest forward pass.", min=1)] = 250,
    checkpoint: options.Checkpoint = None,
    runs: Annotated[
        Path, typer.Option(help="Folder of runs, whose figures of the same weights stand beside.")
    ] = options.RUNS,
    out: Annotated[Path, typer.Option(help="Folder of the reports.")] = Path("results/corruptions"),
    as_json: options.AsJson = False,
) -> None:
    """Ask defenses for images in 15 kinds of corruption and 5 severities (Hendrycks, 2019).

    Example: python -m bench corruptions --defense kwta --dataset cifar10-c:CIFAR-10-C

    Of another data set they are made by a library (pip install 'winnow-bench[corruptions]'). It is
    a report of its own: a corruption is no attack, and is in no worst case.
    """
    from bench.record.provenance import command_line
    from bench.registry.grammar import split_names
    from bench.registry.surroundings import undisturbed
    from bench.report.corruptions import render_corruptions
    from bench.run.config import DEFAULT_N
    from bench.run.corruptions import CorruptionConfig, evaluate_corruptions

    config = CorruptionConfig(
        defenses=tuple(split_names(defense)),
        dataset=dataset,
        n=n or DEFAULT_N,
        fewer=n is None,
        seed=seed,
        device=device,
        batch_size=batch_size,
        checkpoints=options.parse_checkpoints(checkpoint),
        runs=runs,
        out=out,
        command=command_line(),
    )
    with options.interruptible("nothing is stored; the same command begins anew"), undisturbed():
        report, folder = evaluate_corruptions(config)
    if as_json:
        options.print_json(report)
        return
    options.print_markdown(render_corruptions(report))
    options.echo(f"\nevery answer and this page: {folder}")
