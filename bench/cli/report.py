"""`report`: write leaderboards from stored runs, and publish a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders to publish, with --publish.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("results/runs"),
    publish: Annotated[
        bool, typer.Option("--publish", help="Copy the runs' summaries to the published ones.")
    ] = False,
    published: Annotated[Path, typer.Option(help="Folder of the published summaries.")] = Path(
        "results/published"
    ),
) -> None:
    """Write the leaderboard over all stored runs; with --publish, over the published ones as well.

    Only a run that verifies by its manifest is published.

    Example: python -m bench report --publish results/runs/0123456789abcdef
    """
    from bench.errors import UsageError
    from bench.publish import publish_run
    from bench.report import write_leaderboard

    if runs and not publish:
        raise UsageError("naming runs goes with --publish; without it all runs are reported")
    if publish:
        if not runs:
            raise UsageError(f"name the runs to publish, such as {out}/0123456789abcdef")
        for folder in runs:
            publish_run(folder, published)
        typer.echo(write_leaderboard(published))
    else:
        typer.echo(write_leaderboard(out))
