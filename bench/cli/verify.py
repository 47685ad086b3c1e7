"""`verify`: check a stored run from its files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    run: Annotated[str, typer.Argument(help="A run: folder, id or its beginning, or latest.")],
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: weights of a defense. Repeatable.")
    ] = None,
    dataset: Annotated[
        str, typer.Option(help="Where the data are now, when not where the run found them.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="FILE:FACTORY that makes the model of a run of evaluate().")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    out: Annotated[Path, typer.Option(help="Folder in which ids are looked for.")] = Path(
        "results/runs"
    ),
) -> None:
    """Check a run from its files: digests, adversarial examples, and every figure of the summary.

    The weights and the stored adversarial examples are loaded afresh and judged again: in the box,
    within their distance in float64, and wrong alone and in a batch.

    Example: python -m bench verify results/runs/0123456789abcdef

    Exit code 0: everything holds; 1: something does not, and is named.
    """
    from bench.cli.run import parse_checkpoint
    from bench.record.runs import find_run
    from bench.verify import verify_run

    findings = verify_run(
        find_run(run, out),
        checkpoints=dict(parse_checkpoint(text) for text in checkpoint or []),
        dataset=dataset,
        model=model,
        device=device,
    )
    for note in findings.notes:
        typer.echo(f"note: {note}")
    for fault in findings.faults:
        typer.echo(f"does not hold: {fault}")
    if findings.faults:
        raise typer.Exit(1)
    typer.echo(
        f"verified: {findings.files} files unchanged, {findings.examples} adversarial examples "
        "judged again, every figure recomputed"
    )
