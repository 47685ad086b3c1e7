"""`run --dry-run`: the plan of a run, and what it will cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.cli import options

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.record.schema import Cell
    from bench.run.config import RunConfig
    from bench.run.prepare import Prepared


def tell_plan(config: RunConfig) -> None:
    """Print the plan, and what it will cost by a pilot."""
    from bench.run.forecast import forecast
    from bench.run.prepare import prepare
    from bench.run.progress import RunProgress

    with options.interruptible():
        prepared = prepare(config)
    _print_plan(prepared)
    options.notes().print("calibrating by a pilot on some of the examples; Ctrl-C leaves it …")
    with options.interruptible(), RunProgress.of(options.notes(), prepared) as progress:
        expected = forecast(prepared, progress)
    cost, seconds = expected.cost, round(expected.seconds)
    options.echo(
        f"expected by a pilot on {expected.pilot} examples, examination and escalation included: "
        f"{cost.forwards:,.0f} forward and {cost.backwards:,.0f} backward passes, "
        f"about {seconds // 60}:{seconds % 60:02d} min"
    )
    if expected.batch_size is not None:
        options.echo(
            f"memory ends in a pass of a whole shard: about {expected.batch_size} examples fit, "
            "and batches are halved until they do; --batch-size sets where to begin"
        )


def _print_plan(prepared: Prepared) -> None:
    """The plan on a screen: a line or two for each defense, and one for each reason."""
    setting = prepared.setting
    options.echo(
        f"run {prepared.id}: {prepared.dataset.name}, {setting.norm}, n = {setting.n}, "
        f"{len(setting.shards())} shard(s) of {setting.shard_size}, on {prepared.device}"
    )
    runnable = [planned.cell for planned in prepared.cells if planned.why_not is None]
    for same in _alike(runnable):
        options.echo(same)
    left_out: dict[str, list[str]] = {}
    for planned in prepared.cells:
        if planned.why_not:
            what = f"{planned.cell.defense} × {planned.cell.label}"
            left_out.setdefault(planned.why_not.reason, []).append(what)
    for reason, names in left_out.items():
        options.echo(f"  skipped: {reason} ({_few(names)})")
    cost = prepared.cost
    options.echo(
        f"{len(runnable)} of {len(prepared.cells)} cells can run; at most {cost.forwards:,.0f} "
        f"forward and {cost.backwards:,.0f} backward passes; stored shards are not computed again"
    )
    if prepared.examined:
        more = (
            f", escalation at most {prepared.escalation_budget:,} passes a defense at each of them"
        )
        options.echo(
            f"the examination adds measurements at ε = {', '.join(map(str, prepared.examined))}"
            + (more if prepared.config.escalate else "")
        )


def _alike(cells: Sequence[Cell]) -> list[str]:
    """The attacks, and the defenses that as many of them attack at the same epsilons."""
    from bench.record.schema import CLEAN

    attacking = [cell for cell in cells if cell.attack != CLEAN]  # asked first of every one
    names = list(dict.fromkeys(cell.label for cell in attacking))
    found: dict[str, tuple[set[str], dict[str, None]]] = {}
    for cell in attacking:
        attacks, epsilons = found.setdefault(cell.defense, (set(), {}))
        attacks.add(cell.label)
        epsilons[str(cell.epsilon)] = None
    alike: dict[tuple[int, tuple[str, ...]], list[str]] = {}
    for defense, (attacks, epsilons) in found.items():
        alike.setdefault((len(attacks), tuple(epsilons)), []).append(defense)
    return [
        f"  {len(names)} attack(s): {', '.join(names)}",
        *(
            f"  {_few(defenses)} × {count} of them @ {_few(epsilons)}"
            for (count, epsilons), defenses in alike.items()
        ),
    ]


def _few(names: Iterable[str], most: int = 6) -> str:
    """Names, each once; of many the first, and how many more."""
    once = list(dict.fromkeys(names))
    more = len(once) - most
    return ", ".join(once[:most]) + (f" and {more} more" if more > 0 else "")
