"""`export`: a stored run in the forms that others read.

`compare`: two stored runs, paired example by example.

`import-adversarial`: judge adversarial examples that somebody else made.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli import options
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.report.exchange import Form
    from bench.run.imports import Imported


def export(
    run: options.Run,
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
    out: options.Out = options.RUNS,
) -> None:
    """Write a stored run as RobustBench's model_info, model-card metadata, CSV or JSON.

    Only what the run knows is filled in, and only a run whose files are as its manifest says.

    Example: python -m bench export 0123456789abcdef --robustbench --hf --csv
    """
    from bench.record.runs import find_run, stored_summary
    from bench.report.exchange import export_run
    from bench.report.robustbench import parse_info

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
        options.echo(path)
    if robustbench:
        _note_what_robustbench_reads(summary)


def _note_what_robustbench_reads(summary: dict[str, Any]) -> None:
    from bench.report.robustbench import ROBUSTBENCH_DATA, ROBUSTBENCH_NORMS

    dataset, norm = summary["dataset"], summary["norm"]
    if dataset not in ROBUSTBENCH_DATA or norm not in ROBUSTBENCH_NORMS:
        options.echo(
            f"note: RobustBench's own loader reads {', '.join(ROBUSTBENCH_DATA)} in "
            f"{' and '.join(ROBUSTBENCH_NORMS)}, not {dataset} in {norm}",
            err=True,
        )


def compare(
    run_a: options.Run,
    run_b: Annotated[str, typer.Argument(help="Another; or the same, for two of its defenses.")],
    defense: Annotated[
        str,
        typer.Option(
            help="One that both have, or one of each: 'kwta,relu' (default: all in common)."
        ),
    ] = "",
    out: options.Out = options.RUNS,
    as_json: options.AsJson = False,
) -> None:
    """Compare two runs on the same examples: paired differences, McNemar's test, what else differs.

    Runs on other examples, in other norms or judged by other rules are not compared.

    Example: python -m bench compare 0123456789abcdef fedcba9876543210 --defense kwta,relu
    """
    from bench.record.runs import find_run, stored_summary
    from bench.registry.grammar import split_names
    from bench.report.comparison import compare_runs
    from bench.report.paired import render_comparison

    folders = [find_run(text, out) for text in (run_a, run_b)]
    first, second = map(stored_summary, folders)
    comparison = compare_runs(first, second, split_names(defense), folders)
    if as_json:
        options.print_json(comparison)
    else:
        options.print_markdown(render_comparison(comparison))


def import_adversarial(
    file: Annotated[
        Path,
        typer.Argument(
            help="npz or safetensors: `adversarial`, (N, C, H, W) in [0, 1], and where they are "
            "not for all examples in order `index`, (N,)."
        ),
    ],
    defense: Annotated[str, typer.Option(help="Defenses of the run, comma-separated.")],
    dataset: options.Dataset = "digits",
    norm: options.Norm = "Linf",
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
    seed: options.Seed = 0,
    device: options.Device = "auto",
    checkpoint: options.Checkpoint = None,
    out: options.Out = options.RUNS,
    as_json: options.AsJson = False,
) -> None:
    """Judge adversarial examples from a file, and add them to the worst case of the run.

    The run is that of the same defenses, weights, data, norm and seed; where there is none yet, it
    is made. Whatever lies outside the ball or the box is projected once and judged again.

    Example: python -m bench import-adversarial found.npz --defense kwta --eps 0.1
    """
    from bench.record.provenance import command_line
    from bench.registry.grammar import split_names
    from bench.run.config import RunConfig
    from bench.run.imports import import_adversarial as execute
    from bench.run.imports import name_of, to_json
    from bench.threat import Norm

    config = RunConfig(
        defenses=tuple(split_names(defense)),
        dataset=dataset,
        norm=Norm.parse(norm),
        epsilons=options.parse_epsilons(eps),
        n=n,
        seed=seed,
        device=device,
        checkpoints=options.parse_checkpoints(checkpoint),
        out=out,
        command=command_line(),
    )
    with options.interruptible("what was judged is stored; the same command continues"):
        imported = execute(config, file, name or name_of(file))
    if as_json:
        options.print_json(to_json(imported))
    else:
        _print_judged(imported)
    if any(
        cell["status"] == "failed"
        for part in imported.result.summary["defenses"].values()
        for cell in part["attacks"].get(imported.attack, {}).values()
    ):
        raise typer.Exit(options.FAILED)


def _print_judged(imported: Imported) -> None:
    from bench.report.writing import escape, interval, table
    from bench.threat import Epsilon

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
    options.echo(f"{imported.attack}, judged by Winnow:\n")
    options.echo(table(header, rows, text=frozenset({"defense"})))
    widest = max(imported.judged, key=lambda item: float(Epsilon.parse(item.epsilon)), default=None)
    if widest is not None and 2 * widest.projected > widest.candidates:
        options.echo(
            f"\n{widest.projected} of {widest.candidates} lie farther from their example than "
            f"{widest.epsilon}, and were brought back: made at a larger epsilon, or in another "
            "order than the run's? An array `index` says which example each belongs to."
        )
    folder = imported.result.folder
    if folder is not None:
        options.echo(f"\nrun folder:  {folder}\ncheck it:    {options.verification_of(folder)}")
