"""`compare`: two stored runs, paired example by example."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def compare(
    run_a: Annotated[str, typer.Argument(help="A run: folder, id or its beginning, or latest.")],
    run_b: Annotated[str, typer.Argument(help="Another; or the same, for two of its defenses.")],
    defense: Annotated[
        str,
        typer.Option(
            help="One that both have, or one of each: 'kwta,relu' (default: all in common)."
        ),
    ] = "",
    out: Annotated[Path, typer.Option(help="Folder in which ids are looked for.")] = Path(
        "results/runs"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare two runs on the same examples: paired differences, McNemar's test, what else differs.

    Runs on other examples, in other norms or judged by other rules are not compared.

    Example: python -m bench compare 0123456789abcdef fedcba9876543210 --defense kwta,relu
    """
    from bench.grammar import split_names
    from bench.record.runs import find_run, stored_summary
    from bench.report.comparison import compare_runs
    from bench.report.comparison_page import render_comparison

    summaries = [stored_summary(find_run(text, out)) for text in (run_a, run_b)]
    comparison = compare_runs(summaries[0], summaries[1], split_names(defense))
    if as_json:
        typer.echo(json.dumps(comparison, sort_keys=True, indent=2, ensure_ascii=False))
    else:
        typer.echo(render_comparison(comparison), nl=False)
