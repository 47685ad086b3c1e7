"""`selftest`: is this installation's verdict right on defenses whose robustness is known?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.testing.selftest import Finding, Progress, Row


def selftest(
    seeds: Annotated[str, typer.Option(help="Of training and attacks, comma-separated.")] = "0",
    n: Annotated[int, typer.Option(help="Examples of digits per model.", min=1)] = 50,
    eps: Annotated[str, typer.Option(help="Linf epsilons, comma-separated.")] = "0.1",
    only: Annotated[
        str, typer.Option(help="Canaries and honest models, comma-separated; all by default.")
    ] = "",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes (default: at most 2).", min=1)
    ] = None,
) -> None:
    """Evaluate thirteen defenses broken by design and six honest models on digits.

    Each broken one has to end as broken as the model inside it, or not be called credible, and to
    raise the evidence that it is known for; each honest one has to be called credible.

    Example: python -m bench selftest --only kwta,input-rounding,cnn

    Exit code 0: all passed; 1: some did not, and the reason is printed; 2: a mistake in the
    command.
    """
    from bench.testing.selftest import selftest as execute

    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    started = time.monotonic()

    def show(progress: Progress) -> None:
        spent = time.monotonic() - started
        left = spent * (progress.total - progress.done) / progress.done
        notes.print(
            f"{progress.done}/{progress.total}, ETA {int(left // 60)}:{int(left % 60):02d}: "
            f"{progress.job.name} (seed {progress.job.seed}, ε = {progress.job.epsilon}) "
            f"{_figures(progress.finding)}",
            markup=False,
        )

    notes.print("training and evaluating …")
    rows = execute(
        seeds=_seeds(seeds),
        n=n,
        epsilons=_parts(eps, "--eps"),
        names=_parts(only, "--only") if only else None,
        workers=workers,
        on_progress=show,
    )
    typer.echo(_table(rows))
    failed = [row for row in rows if not row.passed]
    typer.echo(
        f"\n{len(rows) - len(failed)} of {len(rows)} passed in {time.monotonic() - started:.0f} s"
    )
    if failed:
        raise typer.Exit(1)


def _parts(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{option} wants a list separated by commas (got {text!r})")
    return parts


def _seeds(text: str) -> list[int]:
    seeds = _parts(text, "--seeds")
    if not all(seed.isdecimal() for seed in seeds):
        raise UsageError(f"--seeds wants whole numbers separated by commas (got {text!r})")
    return [int(seed) for seed in seeds]


def _figures(finding: Finding) -> str:
    if finding.error:
        return f"failed: {finding.error}"
    return (
        f"robust {_percent(finding.robust_accuracy)} %, {finding.verdict or 'no verdict'}, "
        f"{finding.seconds:.0f} s"
    )


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.0f}"


def _table(rows: list[Row]) -> str:
    """Columns aligned by spaces; the last one, the reason, is as long as it needs to be."""
    header = ["model", "kind", "seed", "ε", "clean", "robust", "twin", "verdict", "passed", "s"]
    lines = [
        [
            row.name,
            row.kind,
            str(row.seed),
            row.epsilon,
            _percent(row.finding.clean_accuracy),
            _percent(row.finding.robust_accuracy),
            _percent(row.twin.robust_accuracy if row.twin else None),
            row.finding.verdict or "–",
            "yes" if row.passed else "NO",
            f"{row.finding.seconds:.0f}",
        ]
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    reasons = ["reason", *(row.reason for row in rows)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=True)), reason])
        for line, reason in zip([header, *lines], reasons, strict=True)
    )
