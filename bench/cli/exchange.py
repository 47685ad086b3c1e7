"""`export`: a stored run in the forms that others read.

`compare`: two stored runs, paired example by example.

`import-adversarial`: judge adversarial examples that somebody else made.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.run.imports import Imported


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
    from bench.record.runs import find_run, stored_summary
    from bench.report.exchange import (
        ROBUSTBENCH_DATA,
        ROBUSTBENCH_NORMS,
        Form,
        export_run,
        parse_info,
    )

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
    from bench.record.runs import find_run, stored_summary
    from bench.registry.grammar import split_names
    from bench.report.comparison import compare_runs, render_comparison

    summaries = [stored_summary(find_run(text, out)) for text in (run_a, run_b)]
    comparison = compare_runs(summaries[0], summaries[1], split_names(defense))
    if as_json:
        typer.echo(json.dumps(comparison, sort_keys=True, indent=2, ensure_ascii=False))
    else:
        typer.echo(render_comparison(comparison), nl=False)


def import_adversarial(
    file: Annotated[
        Path,
        typer.Argument(
            help="npz or safetensors: `adversarial`, (N, C, H, W) in [0, 1], and where they are "
            "not for all examples in order `index`, (N,)."
        ),
    ],
    defense: Annotated[str, typer.Option(help="Defenses of the run, comma-separated.")],
    dataset: Annotated[
        str, typer.Option(help="digits, mnist, cifar10, …, parquet:PATH or folder:PATH.")
    ] = "digits",
    norm: Annotated[str, typer.Option(help="Linf, L2 or L1.")] = "Linf",
    eps: Annotated[
        str,
        typer.Option(help="Epsilons; the run's, or the data set's, where not given."),
    ] = "",
    name: Annotated[
        str, typer.Option(help="The attack is called external:NAME (default: the file's name).")
    ] = "",
    n: Annotated[
        int | None,
        typer.Option(
            help="Examples of the run (default: as many as the file holds; 100 by index)."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the run.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: weights of a defense. Repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("results/runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what came of it as JSON.")] = False,
) -> None:
    """Judge adversarial examples from a file, and add them to the worst case of the run.

    The run is that of the same defenses, weights, data, norm and seed; where there is none yet, it
    is made. Whatever lies outside the ball or the box is projected once and judged again.

    Example: python -m bench import-adversarial found.npz --defense kwta --eps 0.1
    """
    from bench.cli.options import parse_checkpoint
    from bench.record.schema import command_line
    from bench.registry.grammar import split_names
    from bench.run.imports import import_adversarial as execute
    from bench.run.imports import to_json
    from bench.run.prepare import RunConfig
    from bench.threat import Norm

    config = RunConfig(
        defenses=tuple(split_names(defense)),
        dataset=dataset,
        norm=Norm.parse(norm),
        epsilons=tuple(part for part in eps.split(",") if part.strip()),
        n=n,
        seed=seed,
        device=device,
        workers=1,
        checkpoints=dict(parse_checkpoint(text) for text in checkpoint or []),
        out=out,
        command=command_line(),
    )
    try:
        imported = execute(config, file, name or file.stem.lower())
    except KeyboardInterrupt:
        typer.echo("interrupted: what was judged is stored; the same command continues", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(to_json(imported), sort_keys=True, indent=2, ensure_ascii=False))
    else:
        _print(imported)
    if any(
        cell["status"] == "failed"
        for part in imported.result.summary["defenses"].values()
        for cell in part["attacks"].get(imported.attack, {}).values()
    ):
        raise typer.Exit(1)


def _print(imported: Imported) -> None:
    from bench.report.markdown import escape, interval, table

    rows = []
    for item in imported.judged:
        worst = imported.result.summary["defenses"][item.defense]["worst_case"][item.epsilon]
        counts = [item.candidates, item.projected, item.refused, item.broken, item.alone]
        rows.append(
            [escape(item.defense), escape(item.epsilon), *map(str, counts), interval(worst)]
        )
    header = [
        "defense", "ε", "judged", "projected", "refused", "adversarial", "broken by nothing else",
        "worst case % (95 %)",
    ]  # fmt: skip
    typer.echo(f"{imported.attack}, judged by Winnow:\n")
    typer.echo(table(header, rows, text=frozenset({"defense"})))
    folder = imported.result.folder
    typer.echo(f"\nrun folder:  {folder}\ncheck it:    python -m bench verify {folder}")
