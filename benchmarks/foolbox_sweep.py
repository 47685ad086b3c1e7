"""Curves over eight epsilons by Foolbox's PGD and FMN: through Winnow against Foolbox by itself.

    python benchmarks/foolbox_sweep.py --n 20

Foolbox gets a model in eval mode, all examples and all epsilons in one call, as its examples do.
Winnow is measured twice: `each` attacks every epsilon by itself, and `bracket` leaves out what the
same attack broke at a smaller epsilon. Its passes and seconds are those of the attack's own cells
in the summary, judging included. Bracketing needs examination, whose passes are not the attack's:
they are told below the table. Curves differ by random starts, by the best iterate that Winnow keeps
where Foolbox returns the last, and by FMN's second run on what its first left unbroken.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peers
from measuring import COMPARED, Curve, Side, asking, compared, say, surroundings, timed, verdict

from bench import registry
from bench.models.ambient import plain_torch
from bench.report.writing import table
from bench.run import run
from bench.run.devices import resolve_device

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from bench.run.prepare import Prepared

EPSILONS = "0.02,0.04,0.06,0.08,0.1,0.12,0.15,0.2"
FOOLBOX = "Foolbox"


def prepared_for(arguments: argparse.Namespace, sweep: Any, out: str) -> Prepared:
    """The run of all attacks at all epsilons."""
    return peers.alone(
        arguments.defense,
        arguments.attacks,
        n=arguments.n,
        device=arguments.device,
        epsilons=tuple(arguments.epsilons.split(",")),
        seed=arguments.seed,
        out=Path(out),
        examine=sweep == "bracket",
        escalate=False,
        sweep=sweep,
    )


def by_foolbox(arguments: argparse.Namespace) -> dict[str, Curve]:
    """The curve of each attack by one call of Foolbox."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepared_for(arguments, "each", folder)
    (contender,), examples = prepared.contenders, prepared.examples
    place = prepared.device
    curves = {}
    for attack in prepared.attacks:
        model = peers.Counting(contender.load().to(place))
        success, spent = timed(
            functools.partial(
                peers.by_foolbox,
                attack,
                model,
                examples.inputs.to(place),
                examples.labels.to(place),
                epsilons=[float(epsilon) for epsilon in prepared.setting.epsilons],
                seed=arguments.seed,
            )
        )
        robust = (1 - success.float().mean(dim=1)).tolist()
        took = Side(model.forwards, model.backwards, spent.seconds)
        curves[attack.name] = Curve(took, robust)
    return curves


def by_winnow(arguments: argparse.Namespace, sweep: str) -> tuple[dict[str, Curve], int]:
    """The curve of each attack from its own cells, and the passes of everything else."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepared_for(arguments, sweep, folder)
        (defense,) = run(prepared).summary["defenses"].values()
    epsilons = [epsilon.text for epsilon in prepared.setting.epsilons]
    curves = {}
    for attack in prepared.attacks:
        cells = [defense["attacks"][attack.name][epsilon] for epsilon in epsilons]
        took = Side(*(sum(cell[part] for cell in cells) for part in Side._fields))
        curves[attack.name] = Curve(took, [cell["robust_accuracy"] for cell in cells])
    all_passes = defense["cost"]["forwards"] + defense["cost"]["backwards"]
    return curves, all_passes - sum(curve.took.passes for curve in curves.values())


def words(curves: dict[str, dict[str, Curve]]) -> list[str]:
    """What the table says: one sentence for passes and one for seconds, of each comparison."""
    return [
        verdict(f"{attack} by {way}", ratio, f"Foolbox's {of}", even=even)
        for way, by_attack in curves.items()
        if way != FOOLBOX
        for attack, curve in by_attack.items()
        for ratio, of, even in (
            (curve.took.passes / curves[FOOLBOX][attack].took.passes, "passes", 0.0),
            (curve.took.seconds / curves[FOOLBOX][attack].took.seconds, "seconds", 0.05),
        )
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = asking(__doc__, n=20, full=100)
    parser.add_argument("--defense", default="relu")
    parser.add_argument("--attacks", default="pgd,fmn")
    parser.add_argument("--epsilons", default=EPSILONS, help="in Linf")
    parser.add_argument("--sweeps", default="each,bracket")
    arguments = parser.parse_args(argv)
    arguments.attacks = ",".join(
        registry.attacks.create(name).name for name in arguments.attacks.split(",")
    )
    arguments.device = resolve_device(arguments.device)
    with plain_torch(arguments.device):
        curves, besides = {FOOLBOX: by_foolbox(arguments)}, {}
        for sweep in arguments.sweeps.split(","):
            curves[f"Winnow, {sweep}"], besides[sweep] = by_winnow(arguments, sweep)
    lines = [
        line
        for attack in curves[FOOLBOX]
        for line in compared(attack, {way: found[attack] for way, found in curves.items()}, FOOLBOX)
    ]
    text = frozenset({"attack", "by", COMPARED[-1]})
    say(table(["attack", *COMPARED], lines, text=text) + "\n")
    for sentence in words(curves):
        say(sentence)
    for sweep, passes in besides.items():
        what = "clean predictions" + (" and examination" if sweep == "bracket" else "")
        say(f"Besides, `{sweep}` makes {passes:,} passes for {what}.")
    facts = {"data": "digits", "defense": arguments.defense, "Linf": arguments.epsilons}
    say("\n" + surroundings(arguments.device, n=arguments.n, seed=arguments.seed, **facts))


if __name__ == "__main__":
    main()
