"""AutoAttack's standard cascade: through Winnow's run against pyautoattack called by itself.

    python benchmarks/autoattack.py --n 30

Both get the same weights, examples, epsilon and seed, and all examples in one batch. Winnow's side
is a whole run without examination: clean predictions, the cascade, the judge's own passes, storing,
summary. The other side is one call of `run_standard_evaluation`; its passes are counted at the
model's logits. What Winnow pays beyond is for judging again what the library claims.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from measuring import say, surroundings, timed, verdict

from bench.config import RunConfig
from bench.matrix.tasks import shard_seed
from bench.matrix.work import one_thread
from bench.preparation import prepare
from bench.report.markdown import table
from bench.run import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.preparation import Prepared

HEADER = ["defense", "by", "forwards", "backwards", "seconds", "robust accuracy (%)"]
HEADER += ["passes ratio", "seconds ratio"]
WINNOW, PEER = "Winnow", "pyautoattack"


class Side(NamedTuple):
    """What one way of running the cascade took and found."""

    forwards: int
    """Of all examples together."""
    backwards: int
    """Of all examples together."""
    seconds: float
    """By the clock on the wall."""
    robust: float
    """Robust accuracy, a fraction."""

    @property
    def passes(self) -> int:
        """Forwards and backwards."""
        return self.forwards + self.backwards


def by_winnow(prepared: Prepared) -> Side:
    """A run; `prepared` has one defense, one epsilon and one shard."""
    result, spent = timed(lambda: run(prepared))
    (defense,) = result.summary["defenses"].values()
    (worst,) = defense["worst_case"].values()
    cost = defense["cost"]
    return Side(cost["forwards"], cost["backwards"], spent.seconds, worst["robust_accuracy"])


def by_pyautoattack(prepared: Prepared) -> Side:
    """The library, from the seed that Winnow's shard has."""
    from peers import Counting, by_autoattack

    setting, examples = prepared.setting, prepared.examples
    (contender,), (epsilon,) = prepared.contenders, setting.epsilons
    model = Counting(contender.loader())
    robust, spent = timed(
        lambda: by_autoattack(
            model,
            examples.inputs,
            examples.labels,
            epsilon=float(epsilon),
            seed=shard_seed(setting.seed, "autoattack", setting.norm, epsilon, 0),
        )
    )
    return Side(model.forwards, model.backwards, spent.seconds, float(robust.float().mean()))


def compare(defense: str, epsilon: str, n: int, seed: int) -> dict[str, Side]:
    """Both sides on one defense."""
    with tempfile.TemporaryDirectory() as folder:
        config = RunConfig(
            defenses=(defense,),
            attacks="autoattack",
            epsilons=(epsilon,),
            n=n,
            seed=seed,
            device="cpu",
            shard_size=n,
            workers=1,
            out=Path(folder),
            twins=False,
            examine=False,
        )
        prepared = prepare(config)
        with one_thread("cpu"):
            return {PEER: by_pyautoattack(prepared), WINNOW: by_winnow(prepared)}


def rows(defense: str, sides: dict[str, Side]) -> list[list[str]]:
    """Two lines of the table."""
    peer = sides[PEER]
    return [
        [
            defense,
            name,
            f"{side.forwards:,}",
            f"{side.backwards:,}",
            f"{side.seconds:.1f}",
            f"{100 * side.robust:.1f}",
            f"{side.passes / peer.passes:.3f}",
            f"{side.seconds / peer.seconds:.2f}",
        ]
        for name, side in sides.items()
    ]


def words(defense: str, sides: dict[str, Side]) -> str:
    """What the two lines say."""
    winnow, peer = sides[WINNOW], sides[PEER]
    more = winnow.passes - peer.passes
    passes = f"{defense}: Winnow makes {abs(more):,} passes {'fewer' if more < 0 else 'more'}"
    found = "the same" if winnow.robust == peer.robust else "ANOTHER"
    time = verdict("in seconds Winnow", winnow.seconds / peer.seconds, "pyautoattack's")
    return f"{passes} and reports {found} robust accuracy; {time}"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table and what it says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, help="examples (default: 30)")
    parser.add_argument("--full", action="store_true", help="200 examples")
    parser.add_argument("--defenses", default="relu,relu-at")
    parser.add_argument("--epsilon", default="0.1", help="in Linf")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    n = arguments.n or (200 if arguments.full else 30)
    measured = {
        defense: compare(defense, arguments.epsilon, n, arguments.seed)
        for defense in arguments.defenses.split(",")
    }
    lines = [row for defense, sides in measured.items() for row in rows(defense, sides)]
    say(table(HEADER, lines, text=frozenset({"defense", "by"})) + "\n")
    for defense, sides in measured.items():
        say(words(defense, sides))
    say("\n" + surroundings(n=n, seed=arguments.seed, data="digits", Linf=arguments.epsilon))


if __name__ == "__main__":
    main()
