"""`run`: evaluate defenses with attacks, and write the leaderboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markdown import Markdown

from bench.cli.options import parse_checkpoint
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.run import Result
    from bench.run.forecast import Forecast
    from bench.run.prepare import Prepared, RunConfig


def run(
    defense: Annotated[
        str, typer.Option(help="Defenses, comma-separated, such as 'relu,kwta[gamma=0.2]'; or all.")
    ],
    attacks: Annotated[
        str, typer.Option(help="Attacks and suites (quick, standard, paper, all), comma-separated.")
    ] = "standard",
    dataset: Annotated[
        str, typer.Option(help="digits, mnist, cifar10, …, parquet:PATH or folder:PATH.")
    ] = "digits",
    norm: Annotated[str, typer.Option(help="Linf, L2 or L1.")] = "Linf",
    eps: Annotated[
        str, typer.Option(help="Epsilons, such as 0.05,8/255; the data set's where not given.")
    ] = "",
    n: Annotated[
        int | None, typer.Option(help="Examples: a fixed, class-balanced subset (default 100).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of all attacks.")] = 0,
    seeds: Annotated[
        str,
        typer.Option(help="Of trainings, such as 0,1,2: train what is missing, evaluate each."),
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(help="Largest forward pass; outcomes do not depend on it.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Worker processes on the CPU (default: one per core, ≤ 8).")
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            help="Examples attacked together, part of what a result depends on "
            "(default: 50 on the CPU, 500 on a GPU)."
        ),
    ] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: weights of a defense. Repeatable.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("results/runs"),
    fresh: Annotated[
        bool, typer.Option("--fresh/--resume", help="Forget what is stored, or continue it.")
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the plan, and what it will cost by a short pilot."),
    ] = False,
    twins: Annotated[
        bool, typer.Option("--twins/--no-twins", help="Evaluate each defense's ReLU twin as well.")
    ] = True,
    examine: Annotated[
        bool, typer.Option("--examine/--no-examine", help="Gather evidence and give a verdict.")
    ] = True,
    escalate: Annotated[
        bool, typer.Option("--escalate/--no-escalate", help="Follow failed evidence with attacks.")
    ] = True,
    sweep: Annotated[
        Literal["each", "bracket"],
        typer.Option(
            help="Over epsilons: infer and check what survives below (bracket), or attack each."
        ),
    ] = "bracket",
    budget: Annotated[
        int | None,
        typer.Option(help="Passes the run may spend; what does not fit is marked incomplete."),
    ] = None,
    escalation_budget: Annotated[
        int | None, typer.Option(help="Passes of escalation per defense (default 15,000 × n).")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print summary.json instead of tables.")
    ] = False,
) -> None:
    """Evaluate defenses with attacks across epsilons, and write the leaderboard.

    Example: python -m bench run --defense kwta --attacks all

    The same command continues its run: what is stored is not computed again. Exit code 0: all
    cells done; 1: some cell failed, or did not fit in --budget; 2: a mistake in the command.
    """
    from bench import registry
    from bench.record.schema import command_line
    from bench.registry.grammar import split_names
    from bench.run import run as execute
    from bench.run.forecast import forecast
    from bench.run.prepare import RunConfig, prepare
    from bench.threat import Norm

    names = registry.defenses.names() if defense == "all" else split_names(defense)
    config = RunConfig(
        defenses=tuple(names),
        attacks=attacks,
        dataset=dataset,
        norm=Norm.parse(norm),
        epsilons=tuple(part for part in eps.split(",") if part.strip()),
        n=n,
        seed=seed,
        device=device,
        batch_size=batch_size,
        workers=workers,
        shard_size=shard_size,
        checkpoints=dict(parse_checkpoint(text) for text in checkpoint or []),
        out=out,
        fresh=fresh,
        twins=twins,
        examine=examine,
        escalate=escalate,
        sweep=sweep,
        budget=budget,
        escalation_budget=escalation_budget,
        command=command_line(),
    )
    console = Console(highlight=False)
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    if seeds:
        if dry_run:
            raise UsageError("--dry-run plans a single run; leave --seeds out")
        _run_seeds(console, notes, config, seeds, as_json=as_json)
        return
    if not (dry_run or as_json):
        notes.print("loading data and weights …")
    prepared = prepare(config)
    from bench.cli.progress import RunProgress

    if dry_run:
        _print_plan(console, prepared)
        notes.print("calibrating by a pilot on some of the examples; Ctrl-C leaves it …")
        try:
            with RunProgress(notes, prepared.headline.text) as progress:
                _print_prediction(console, forecast(prepared, progress))
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        return
    try:
        with RunProgress(notes, prepared.headline.text) as progress:
            result = execute(prepared, progress)
    except KeyboardInterrupt:
        notes.print("interrupted: what was finished is stored; the same command continues")
        raise typer.Exit(130) from None
    _print_result(console, result, as_json=as_json)
    if result.failed:
        raise typer.Exit(1)


def _run_seeds(
    console: Console, notes: Console, config: RunConfig, text: str, *, as_json: bool
) -> None:
    """Train and evaluate for each training seed; print what they share."""
    from bench.cli.options import parse_seeds
    from bench.cli.progress import SeedsProgress
    from bench.run.seeds import run_seeds

    try:
        seeded = run_seeds(config, parse_seeds(text), SeedsProgress(notes))
    except KeyboardInterrupt:
        notes.print("interrupted: what was finished is stored; the same command continues")
        raise typer.Exit(130) from None
    results = seeded.results
    if as_json:
        summaries = {str(seed): result.summary for seed, result in results.items()}
        typer.echo(json.dumps(summaries, sort_keys=True, indent=2, ensure_ascii=False))
    else:
        markdown = seeded.to_markdown()
        if console.is_terminal:
            console.print(Markdown(markdown))
        else:
            typer.echo(markdown)
    if any(result.failed for result in results.values()):
        raise typer.Exit(1)


def _print_plan(console: Console, prepared: Prepared) -> None:
    setting = prepared.setting
    console.print(
        f"run {prepared.id}: {prepared.dataset.name}, {setting.norm}, n = {setting.n}, "
        f"{len(setting.shards())} shard(s) of {setting.shard_size}, on {prepared.device}"
    )
    for planned in prepared.cells:
        reason = f"  skipped: {planned.why_not.reason}" if planned.why_not else ""
        cell = planned.cell
        console.print(f"  {cell.defense} × {cell.label} @ {cell.epsilon}{reason}", markup=False)
    runnable = sum(planned.why_not is None for planned in prepared.cells)
    cost = prepared.cost
    console.print(
        f"{runnable} of {len(prepared.cells)} cells can run; at most {cost.forwards:,.0f} forward "
        f"and {cost.backwards:,.0f} backward passes; stored shards are not computed again"
    )
    if prepared.config.examine:
        more = f", escalation at most {prepared.escalation_budget:,} passes a defense"
        console.print(
            "the examination adds measurements at the headline epsilon"
            + (more if prepared.config.escalate else "")
        )


def _print_prediction(console: Console, expected: Forecast) -> None:
    cost, seconds = expected.cost, round(expected.seconds)
    console.print(
        f"expected by a pilot on {expected.pilot} examples, examination and escalation included: "
        f"{cost.forwards:,.0f} forward and {cost.backwards:,.0f} backward passes, "
        f"about {seconds // 60}:{seconds % 60:02d} min"
    )


def _print_result(console: Console, result: Result, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result.summary, sort_keys=True, indent=2, ensure_ascii=False))
        return
    text = result.to_markdown()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        typer.echo(text)
    if result.folder is not None:
        typer.echo(f"run folder:  {result.folder}")
        typer.echo(f"leaderboard: {result.folder.parent / 'leaderboard.md'}")
        typer.echo(f"check it:    python -m bench verify {result.folder}")
