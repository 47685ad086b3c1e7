"""`runs`: what is stored, and making room.

`report`: write leaderboards from stored runs, and publish a run.

`verify`: check a stored run from its files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options

if TYPE_CHECKING:
    from bench.run.rebuild import Source
    from bench.run.recompute import Recomputed
    from bench.run.sampling import Sampling
    from bench.run.verification import Findings

app = typer.Typer(
    help="List, show and remove stored runs.\n\nExample: python -m bench runs list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list", cls=options.Verb)
def list_runs(out: options.Out = options.RUNS, as_json: options.AsJson = False) -> None:
    """List the runs in a folder: id, date, data, norm, n, defenses, status, size on the disk.

    Example: python -m bench runs list
    """
    from bench.record.runs import stored_runs
    from bench.report.tables import describe, render_runs

    runs = stored_runs(out)
    if as_json:
        options.print_json([describe(run) for run in runs])
    elif not runs:
        options.echo(f"no runs in {out}")
    else:
        options.print_markdown(render_runs(runs))


@app.command("show", cls=options.Verb)
def show(
    run: options.Run,
    out: options.Out = options.RUNS,
    as_json: options.AsJson = False,
) -> None:
    """Show one run: what it has, what is unfinished, and the command that continues it.

    Example: python -m bench runs show 0123456789abcdef
    """
    from bench.errors import StoreError, UsageError
    from bench.record.runs import find_run, look_at, stored_summary
    from bench.report.tables import render_run, status_of

    folder = find_run(run, out)
    if not (folder / "run.json").is_file():
        raise UsageError(f"{folder} is a published summary: its figures are in its summary.json")
    found = look_at(folder)
    if as_json:
        options.print_json(status_of(found))
        return
    try:
        summary = stored_summary(folder)
    except StoreError:  # unfinished, or changed since: its figures are not shown
        summary = None
    options.print_markdown(render_run(found, summary))


@app.command("clean", cls=options.Verb)
def clean(
    runs: Annotated[
        list[str] | None, typer.Argument(help="Runs to remove: folders, beginnings of ids, latest.")
    ] = None,
    out: options.Out = options.RUNS,
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Remove every run that did not finish.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; otherwise it is only said what would go.")
    ] = False,
) -> None:
    """Remove half-written files, and the runs that are named or, with --unfinished, did not finish.

    Nothing is removed without --yes, nothing that a process works on, and nothing published.

    Example: python -m bench runs clean --unfinished --yes
    """
    from rich.filesize import decimal

    from bench.record.runs import clean as remove
    from bench.record.runs import find_run, plan_cleaning
    from bench.report import write_leaderboard

    chosen = [find_run(text, out) for text in runs or []]
    removals = plan_cleaning(out, chosen, unfinished=unfinished)
    if not removals:
        options.echo(f"nothing to remove in {out}")
        return
    for item in removals:
        word = "removed" if yes else "would remove"
        if yes:
            remove([item])
        options.echo(f"{word} {item.path} ({item.why}, {decimal(item.bytes)})")
    total = decimal(sum(item.bytes for item in removals))
    if not yes:
        options.echo(f"{total} in all; nothing is removed without --yes")
        return
    if any(item.run for item in removals):
        write_leaderboard(out)
    options.echo(f"{total} removed")


def report(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Runs to show with --html or to publish with --publish."),
    ] = None,
    out: options.Out = options.RUNS,
    html: options.Html = False,
    publish: Annotated[
        bool, typer.Option("--publish", help="Copy the runs' summaries to the published ones.")
    ] = False,
    published: Annotated[Path, typer.Option(help="Folder of the published summaries.")] = Path(
        "results/published"
    ),
) -> None:
    """Write the leaderboard over all stored runs, or a page of some of them.

    With --publish, write it over the published ones; only a run that verifies by its manifest is
    published.

    Example: python -m bench report --html latest
    """
    from bench.errors import UsageError
    from bench.record.runs import find_run, stored_summary
    from bench.report import publish_run, summaries_in, write_leaderboard
    from bench.run.page import write_page

    found = [find_run(text, out) for text in runs or []]
    if publish and not found:
        raise UsageError(f"name the runs to publish, such as {out}/0123456789abcdef")
    if found and not (publish or html):
        raise UsageError("naming runs goes with --publish or --html; without, all are reported")
    if found and not publish:
        name = found[0].name if len(found) == 1 else "report"
        shown = {folder: stored_summary(folder) for folder in found}
        options.echo(write_page(shown, out / f"{name}.html"))
        return
    for folder in found:
        publish_run(folder, published)
    place = published if publish else out
    options.echo(write_leaderboard(place))
    if html:
        options.echo(write_page(summaries_in(place), place / "leaderboard.html"))


def verify(
    run: options.Run,
    dataset: Annotated[
        str, typer.Option(help="Where the data are now, when not where the run found them.")
    ] = "",
    model: Annotated[
        str, typer.Option(help="FILE:FACTORY that makes the model of a run of evaluate().")
    ] = "",
    recompute: Annotated[
        str,
        typer.Option(
            metavar="SHARE",
            help="Compute so many of the stored shards again, and compare: a fraction, all, or 0.",
        ),
    ] = "0.02",
    recompute_seed: Annotated[
        int | None,
        typer.Option(help="Which shards are drawn (default: a fresh one, which is printed)."),
    ] = None,
    device: options.Device = "auto",
    workers: Annotated[
        int, typer.Option(help="Worker processes of --recompute, as of run.", min=1)
    ] = 1,
    checkpoint: options.Checkpoint = None,
    out: options.Out = options.RUNS,
    as_json: options.AsJson = False,
) -> None:
    """Check a run from its files: digests, adversarial examples, and every figure of the summary.

    The weights and the stored adversarial examples are loaded afresh and judged again: in the box,
    within their distance in float64, and wrong alone and in a batch. Where all of that holds, a
    share of the shards is computed again from their seeds, and compared outcome by outcome. What is
    printed as proven follows from files, data, weights and code; the rest is listed as recorded,
    not proven.

    Example: python -m bench verify results/runs/0123456789abcdef

    Exit code 0: everything holds; 1: something does not, and is named.
    """
    from bench.record.runs import find_run
    from bench.run.devices import resolve_device
    from bench.run.rebuild import Source
    from bench.run.sampling import Sampling
    from bench.run.verification import verify_run

    sampling = Sampling.parse(recompute, recompute_seed, workers)
    folder = find_run(run, out)
    findings = verify_run(
        folder,
        checkpoints=options.parse_checkpoints(checkpoint),
        dataset=dataset,
        model=model,
        device=device,
    )
    again = None
    if findings.verified:
        source = Source(
            resolve_device(device), options.parse_checkpoints(checkpoint), dataset, model
        )
        again = _recompute(folder, sampling, source)
        again.add_to(findings)
    if as_json:
        computed = {"recomputed": None if again is None else again.to_json()}
        options.print_json({**findings.to_json(), **computed})
    else:
        _say(findings, again)
    if not findings.verified:
        raise typer.Exit(options.FAILED)


def _say(findings: Findings, again: Recomputed | None) -> None:
    for note in findings.notes:
        typer.echo(f"note: {note}")
    for fault in findings.faults:
        typer.echo(f"does not hold: {fault}")
    if findings.verified:
        typer.echo(
            f"verified: {findings.files} files unchanged, {findings.examples} adversarial examples "
            "judged again, every figure recomputed"
        )
        for claim in findings.proven:
            typer.echo(f"proven: {claim}")
        for claim in findings.recorded:
            typer.echo(f"recorded, not proven: {claim}")
    if again is not None:
        typer.echo(again.text)


def _recompute(folder: Path, sampling: Sampling, source: Source) -> Recomputed:
    """Compute a share of a run again, showing how it goes."""
    from bench.run.progress import RunProgress
    from bench.run.recompute import recompute

    said = "the files hold; what they alone do not prove was not computed again"
    with options.interruptible(said), RunProgress(options.notes()) as progress:
        return recompute(folder, sampling, source, progress)
