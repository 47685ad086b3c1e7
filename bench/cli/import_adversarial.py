"""`import-adversarial`: judge adversarial examples that somebody else made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.imports import Imported


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
    from bench.cli.run import parse_checkpoint
    from bench.config import RunConfig
    from bench.grammar import split_names
    from bench.imports import import_adversarial as execute
    from bench.imports import to_json
    from bench.record.provenance import command_line
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
