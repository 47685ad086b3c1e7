"""`selftest`: is this installation's verdict right on defenses whose robustness is known?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli import options
from bench.errors import UsageError

if TYPE_CHECKING:
    from bench.testing.selftest import Diagnosis, Ended, Row


def selftest(
    eps: Annotated[str, typer.Option(help="Linf epsilons, comma-separated.")] = "0.1",
    n: Annotated[int, typer.Option(help="Test examples per model.", min=1)] = 50,
    seeds: Annotated[str, typer.Option(help="Of training and attacks, comma-separated.")] = "0",
    only: Annotated[
        str, typer.Option(help="Canaries and honest models, comma-separated; all by default.")
    ] = "",
    device: options.Device = "cpu",
    workers: Annotated[
        int | None, typer.Option(help="Worker processes (default: at most 2).", min=1)
    ] = None,
) -> None:
    """Evaluate defenses that are broken by design, and honest models.

    Each broken one has to end as broken as the model inside it, or not be called credible, and to
    raise the evidence that it is known for; each honest one has to be called credible, or broken
    where no more survive than by guessing. They are on digits; two honest ones on MNIST are
    examined where WINNOW_DATA names a folder that has mnist/ in Hugging Face's layout.

    Example: python -m bench selftest --only kwta,input-rounding,cnn

    Exit code 0: all passed; 1: some did not, and the reason is printed; 2: a mistake in the
    command.
    """
    from bench.run.devices import resolve_device
    from bench.testing.selftest import selftest as execute

    console, started = options.notes(), time.monotonic()

    def show(ended: Ended) -> None:
        job, spent = ended.job, time.monotonic() - started
        left = spent * (ended.total - ended.done) / ended.done
        console.print(
            f"{ended.done}/{ended.total}, ETA {int(left // 60)}:{int(left % 60):02d}: "
            f"{job.name} (seed {job.seed}, ε = {job.epsilon}) {_figures(ended.diagnosis)}"
        )

    numbers, epsilons = options.parse_seeds(seeds), _parts(eps, "--eps")
    names = _parts(only, "--only") if only else None
    console.print("training and evaluating …")
    rows = execute(
        seeds=numbers,
        n=n,
        epsilons=epsilons,
        names=names,
        workers=workers,
        device=resolve_device(device),
        on_progress=show,
    )
    options.echo(_table(rows))
    passed, seconds = sum(row.passed for row in rows), time.monotonic() - started
    options.echo(f"\n{passed} of {len(rows)} passed in {seconds:.0f} s")
    if passed < len(rows):
        raise typer.Exit(options.FAILED)


def _parts(text: str, option: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise UsageError(f"{option} wants a list separated by commas (got {text!r})")
    return parts


def _figures(diagnosis: Diagnosis) -> str:
    if diagnosis.error:
        return f"failed: {diagnosis.error}"
    return (
        f"robust {_percent(diagnosis.robust_accuracy)} %, {diagnosis.verdict or 'no verdict'}, "
        f"{diagnosis.seconds:.0f} s"
    )


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.0f}"


def _table(rows: list[Row]) -> str:
    from bench.report.writing import escape, table

    header = ["model", "made", "seed", "ε", "clean", "robust", "twin", "verdict", "passed", "s"]
    lines = [
        [
            row.name,
            "broken" if row.twin else "honest",
            str(row.seed),
            row.epsilon,
            _percent(row.diagnosis.clean_accuracy),
            _percent(row.diagnosis.robust_accuracy),
            _percent(row.twin.robust_accuracy if row.twin else None),
            row.diagnosis.verdict or "–",
            "yes" if row.passed else "NO",
            f"{row.diagnosis.seconds:.0f}",
            escape(row.reason),
        ]
        for row in rows
    ]
    text = frozenset({"model", "made", "verdict", "passed", "reason"})
    return table([*header, "reason"], lines, text=text)
