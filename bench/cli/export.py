"""`export`: a stored run in the forms that others read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[str, typer.Argument(help="A run: folder, id or its beginning, or latest.")],
    robustbench: Annotated[
        bool, typer.Option("--robustbench", help="model_info JSON, one for each defense.")
    ] = False,
    hf: Annotated[
        bool, typer.Option("--hf", help="Metadata of a Hugging Face model card, one each.")
    ] = False,
    csv: Annotated[
        bool, typer.Option("--csv", help="Outcomes: a row per defense, attack, epsilon, example.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The run's summary.")] = False,
    to: Annotated[
        Path | None, typer.Option(help="Folder to write into (default: results/exports/RUN).")
    ] = None,
    eps: Annotated[
        str, typer.Option(help="The epsilon that --robustbench is about (default: the headline).")
    ] = "",
    info: Annotated[
        list[str] | None,
        typer.Option(
            help="KEY=VALUE for --robustbench: link, name, authors, venue, additional_data, "
            "number_forward_passes, reported. Repeatable."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there already.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder in which ids are looked for.")] = Path(
        "results/runs"
    ),
) -> None:
    """Write a stored run as RobustBench's model_info, model-card metadata, CSV or JSON.

    Only what the run knows is filled in, and only a run whose files are as its manifest says.

    Example: python -m bench export 0123456789abcdef --robustbench --hf --csv
    """
    from bench.errors import UsageError
    from bench.exports import Form, export_run
    from bench.record.runs import find_run, stored_summary
    from bench.report.exchange import ROBUSTBENCH_DATA, ROBUSTBENCH_NORMS, parse_info

    asked: dict[Form, bool] = {"robustbench": robustbench, "hf": hf, "csv": csv, "json": as_json}
    if (eps or info) and not robustbench:
        raise UsageError("--eps and --info are for --robustbench; give it as well")
    folder = find_run(run, out)
    summary = stored_summary(folder)
    written = export_run(
        folder,
        to or Path("results/exports") / summary["run"],
        [form for form, wanted in asked.items() if wanted],
        epsilon=eps,
        info=parse_info(info or []),
        overwrite=overwrite,
    )
    for path in written:
        typer.echo(path)
    if robustbench and (
        summary["dataset"] not in ROBUSTBENCH_DATA or summary["norm"] not in ROBUSTBENCH_NORMS
    ):
        typer.echo(
            f"note: RobustBench's own loader reads {', '.join(ROBUSTBENCH_DATA)} in "
            f"{' and '.join(ROBUSTBENCH_NORMS)}, not {summary['dataset']} in {summary['norm']}",
            err=True,
        )
