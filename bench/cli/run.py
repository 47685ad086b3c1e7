"""`run`: evaluate defenses with attacks, and write the leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from bench.cli import options
from bench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from bench.run import Result
    from bench.run.config import RunConfig

#: What Ctrl-C says.
CONTINUED = "what was finished is stored; the same command continues"
#: What a run without worker processes says.
NOT_ISOLATED = (
    "note: defenses and attacks run in this process, which they can end or hang; --workers 1 gives "
    "them one of their own"
)


def run(
    defense: Annotated[
        str, typer.Option(help="Defenses, comma-separated, such as 'relu,kwta[gamma=0.2]'; or all.")
    ],
    attacks: Annotated[
        str, typer.Option(help="Attacks and suites (quick, standard, paper, all), comma-separated.")
    ] = "standard",
    dataset: options.Dataset = "digits",
    classes: options.Classes = "",
    norm: options.Norm = "Linf",
    eps: Annotated[
        str, typer.Option(help="Epsilons, such as 0.05,8/255; the data set's where not given.")
    ] = "",
    n: Annotated[
        int | None, typer.Option(help="Examples: a fixed, class-balanced subset (default 100).")
    ] = None,
    seed: options.Seed = 0,
    seeds: Annotated[
        str,
        typer.Option(help="Of trainings, such as 0,1,2: train what is missing, evaluate each."),
    ] = "",
    device: options.Devices = "auto",
    executor: Annotated[
        str,
        typer.Option(help="Where tasks are done: local, or on a cluster: ray, ray://HOST:PORT."),
    ] = "local",
    batch_size: Annotated[
        int | None, typer.Option(help="Largest forward pass; outcomes do not depend on it.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that defenses and attacks run in (default: one per core, ≤ 8 on this "
            "machine, or per GPU); 0: this process, which they can then end or hang."
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="Seconds that a task may take in a worker process; 0 for no end (default: 20 "
            "times what its passes should take, at least 600)."
        ),
    ] = None,
    shard_size: Annotated[
        int | None,
        typer.Option(
            help="Examples attacked together, part of what a result depends on "
            "(default: 50 on the CPU, 100 of small images, 500 on a GPU)."
        ),
    ] = None,
    checkpoint: options.Checkpoint = None,
    out: options.Out = options.RUNS,
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
    headline: Annotated[
        str,
        typer.Option(
            help="The epsilon that ranks and is examined (default: the data set's usual one among "
            "--eps, else the largest)."
        ),
    ] = "",
    examine: Annotated[
        Literal["headline", "each", "none"],
        typer.Option(help="Where to gather evidence and give a verdict: at which epsilons."),
    ] = "headline",
    no_examine: Annotated[
        bool, typer.Option("--no-examine", help="The same as --examine none.")
    ] = False,
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
        int | None,
        typer.Option(help="Passes of escalation per defense and epsilon (default 15,000 × n)."),
    ] = None,
    html: options.Html = False,
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
    from bench.data.reading import with_classes
    from bench.record.provenance import command_line
    from bench.registry.grammar import split_names
    from bench.run.config import RunConfig
    from bench.threat import Norm

    if no_examine and examine == "each":
        raise UsageError("--examine each and --no-examine exclude each other: give one of them")
    names = registry.defenses.names() if defense == "all" else split_names(defense)
    config = RunConfig(
        defenses=tuple(names),
        attacks=attacks,
        dataset=with_classes(dataset, classes),
        norm=Norm.parse(norm),
        epsilons=options.parse_epsilons(eps),
        n=n,
        seed=seed,
        device=device,
        executor=executor,
        batch_size=batch_size,
        workers=workers,
        timeout=timeout,
        shard_size=shard_size,
        checkpoints=options.parse_checkpoints(checkpoint),
        out=out,
        fresh=fresh,
        twins=twins,
        headline=headline,
        examine="each" if examine == "each" else examine == "headline" and not no_examine,
        escalate=escalate,
        sweep=sweep,
        budget=budget,
        escalation_budget=escalation_budget,
        command=command_line(),
    )
    if seeds and dry_run:
        raise UsageError("--dry-run plans a single run; leave --seeds out")
    if dry_run and (as_json or html):
        raise UsageError("--dry-run prints a plan alone; leave --json and --html out")
    if dry_run:
        from bench.cli.dry_run import tell_plan

        tell_plan(config)
        return
    show = _Shown(as_json, html)
    results = _run_seeds(config, seeds, show) if seeds else _run_once(config, show)
    if any(result.failed for result in results):
        raise typer.Exit(options.FAILED)


class _Shown(NamedTuple):
    """How an answer is given."""

    as_json: bool
    html: bool
    """Whether a page is written as well."""

    def page(self, summaries: dict[Path, dict[str, Any]], path: Path) -> None:
        """Write the page of some runs, if it was asked for, and say where it is."""
        if self.html:
            from bench.run.page import write_page

            written = write_page(summaries, path)
            options.echo(f"page:        {written}", err=self.as_json)


def _run_once(config: RunConfig, show: _Shown) -> list[Result]:
    """Do what is missing of a run, and print its answer; none where nothing is missing."""
    from bench.registry.surroundings import undisturbed
    from bench.report import render_leaderboard, write_leaderboard
    from bench.report.glance import closing, spent
    from bench.run.again import answered, question

    with options.interruptible(), undisturbed():
        asked = question(config)
        found = answered(asked, config.out)
        if found is not None:
            write_leaderboard(config.out)
    if found is None:
        result = _execute(config, asked, quiet=show.as_json)
        results, summary, folder = [result], result.summary, result.folder
    else:
        options.notes().print(f"nothing is missing of {found.folder}: read from its files")
        results, summary, folder = [], *found
    if show.as_json:
        options.print_json(summary)
    else:
        options.print_markdown(render_leaderboard([summary]))
    if folder is not None and not show.as_json:
        options.echo(f"\nrun folder:  {folder}")
        options.echo(f"leaderboard: {folder.parent / 'leaderboard.md'}")
        options.echo(f"check it:    {options.verification_of(folder)}")
    if folder is not None:
        show.page({folder: summary}, folder.parent / f"{folder.name}.html")
    if not show.as_json:
        options.echo(spent(summary))
        options.echo()
        for name in summary["defenses"]:  # last, where the eye is
            options.echo(closing(summary, name))
    return results


def _execute(config: RunConfig, asked: str, *, quiet: bool) -> Result:
    from bench.cli.progress import DataProgress
    from bench.registry.surroundings import undisturbed
    from bench.run import run as execute
    from bench.run.prepare import prepare
    from bench.run.progress import RunProgress

    if not quiet:
        options.notes().print("loading data and weights …")
    with options.interruptible(CONTINUED), undisturbed():
        with DataProgress(options.notes()) as decoding:
            prepared = prepare(config, on_progress=decoding.update)
        if not prepared.workers:
            options.notes().print(NOT_ISOLATED)
        with RunProgress.of(options.notes(), prepared) as progress:
            return execute(prepared, progress, asked)


def _run_seeds(config: RunConfig, seeds: str, show: _Shown) -> list[Result]:
    """Train and evaluate for each training seed; print what they share."""
    from bench.cli.progress import SeedsProgress
    from bench.registry.surroundings import undisturbed
    from bench.run.seeds import run_seeds

    with options.interruptible(CONTINUED), undisturbed():
        seeded = run_seeds(config, options.parse_seeds(seeds), SeedsProgress(options.notes()))
    if show.as_json:
        options.print_json({str(seed): result.summary for seed, result in seeded.results.items()})
    else:
        options.print_markdown(seeded.to_markdown())
    results = list(seeded.results.values())
    show.page({r.folder: r.summary for r in results if r.folder}, config.out / "report.html")
    return results
