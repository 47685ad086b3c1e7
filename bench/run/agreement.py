"""Whether shards that were computed again are what is stored.

On the same processor (name, model and instructions) or GPU, with the same versions of what a run
notes, a computation is a function of its seed: everything has to come out the same, to the last
digit. Seconds never are.

Elsewhere a search takes other ways, since rounding differs and random numbers may. There

- whom a shard attacked, the labels and what was known before have to be the same;
- the predictions of a deterministic defense on unperturbed examples have to be the same, but where
  the margin is less than `FLIP_MARGIN`, and the margins themselves within it;
- of everything else, what differs by more than `FLIP_MARGIN` has to differ upwards as often as
  downwards: by an exact sign test for each defense, attack and column, of examples for the outcomes
  of deterministic defenses, and of shards for the rest, whose examples may share random numbers.
  All tests together cry wolf on one honest run in a hundred, at most;
- passes, flags and texts are not compared.

Passes of a search that serves several epsilons are proven up to how often it was made: a run that
was extended made it again, and nothing says for which epsilons.

So is compared what does not come out the same twice on this machine.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from bench.record.statistics import mcnemar
from bench.run.verification.proofs import FLIP_MARGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import pandas as pd

    from bench.record.outcomes import Outcomes
    from bench.run.rebuild import Rebuilt

#: Known before anything is computed, the same everywhere; and what the clean predictions give.
GIVEN, FROM_CLEAN = ("index", "label", "attacked"), ("clean_prediction", "draws")
#: Classes and words, of which none is higher than another.
UNORDERED = ("clean_prediction", "prediction", "fault")
#: What figures rest on: compared by example where a defense is deterministic.
DRAWN = ("wrong_draws", "choice_wrong_draws")
FIGURES = ("broken", *DRAWN, "distance_linf", "distance_l2", "distance_l1")
#: How often all sign tests together may find something in an honest run.
FALSE_ALARMS = 0.01
#: Examples named in a sentence, at most.
NAMED = 3


def differences(rebuilt: Rebuilt, again: Sequence[Outcomes]) -> list[str]:
    """What of a computation did not come out as it is stored, exactly; a sentence for each shard.

    Args:
        rebuilt: with what is stored.
        again: what came out now, one for each cell of the task.
    """
    found = []
    for number, (then, now) in enumerate(zip(rebuilt.stored, again, strict=True)):
        parts = _columns(then.frame, now.frame)
        if then.flags != now.flags:
            parts.append("what the attack flagged")
        if number == 0:
            parts += _passes(rebuilt.stored, again)
        if parts:
            found.append(f"{place(rebuilt, number)}: {'; '.join(parts)}")
    return found


def place(rebuilt: Rebuilt, number: int) -> str:
    """A shard, as people call it."""
    cell, (_, start, stop) = rebuilt.task.cell, rebuilt.task.shard
    epsilon = rebuilt.task.cells[number][1]
    return f"{cell.defense} × {cell.label} @ {epsilon}, examples {start} to {stop - 1}"


def _columns(
    then: pd.DataFrame, now: pd.DataFrame, names: Sequence[str] | None = None
) -> list[str]:
    if len(then) != len(now):
        return [f"{len(then)} examples stored, {len(now)} in the shard"]
    parts = []
    for name in names or dict.fromkeys([*now.columns, *then.columns]):
        if name not in then or name not in now:
            parts.append(f"{name} is {'not ' if name not in then else 'alone '}stored")
            continue
        stored, found = then[name].to_numpy(), now[name].to_numpy()
        same = (stored == found) | ((stored != stored) & (found != found))
        rows = (~same).nonzero()[0]
        told = [
            f"example {now['index'].iloc[row]} (stored {stored[row]}, now {found[row]})"
            for row in rows[:NAMED]
        ]
        if len(rows) > NAMED:
            told.append(f"{len(rows) - NAMED} more")
        if told:
            parts.append(f"{name} of {', '.join(told)}")
    return parts


def _passes(then: Sequence[Outcomes], now: Sequence[Outcomes]) -> list[str]:
    """The passes of a computation, charged to the first of the cells that it filled then.

    A run that was extended computed it once for each group of epsilons: what each of them spent on
    the attack is the same, and the judge's part together. How many groups there were, nothing says.
    """
    spent = now[0].totals
    attack = (spent.forwards - spent.judge_forwards, spent.backwards)
    charged = [o.totals for o in then if o.totals.forwards or o.totals.backwards]
    parts = [
        f"{t.forwards} forwards of {t.judge_forwards} by the judge and {t.backwards} backwards "
        f"stored; now {spent.forwards} of {spent.judge_forwards} and {spent.backwards}"
        for t in charged
        if (t.forwards - t.judge_forwards, t.backwards) != attack
    ]
    if not charged and any((*attack, spent.judge_forwards)):
        parts.append(
            f"no passes stored; now {spent.forwards} forwards, {spent.backwards} backwards"
        )
    judged = sum(o.totals.judge_forwards for o in then)
    if judged != spent.judge_forwards:
        parts.append(f"{judged} forwards by the judge stored, now {spent.judge_forwards}")
    return parts


class _Compared(NamedTuple):
    """One column of an attack on a defense."""

    defense: str
    attack: str
    column: str


class Drift:
    """Compares what need not come out the same to the last digit."""

    def __init__(self) -> None:
        self._signs: dict[_Compared, list[int]] = defaultdict(list)
        """+1 where more is stored than was found now, -1 where less."""
        self._faults: list[str] = []

    def add(self, rebuilt: Rebuilt, again: Sequence[Outcomes]) -> None:
        """Compare a computation with what is stored of it."""
        for number, (then, now) in enumerate(zip(rebuilt.stored, again, strict=True)):
            known = GIVEN if rebuilt.task.is_clean else (*GIVEN, *FROM_CLEAN)
            given = _columns(then.frame, now.frame, known)
            if given:
                self._faults.append(f"{place(rebuilt, number)}: {'; '.join(given)}")
                continue
            randomised = max(int(each.frame["draws"].max()) for each in (then, now)) > 1
            if rebuilt.task.is_clean and not randomised:
                self._predictions(place(rebuilt, number), then.frame, now.frame)
            else:
                self._searched(rebuilt, then.frame, now.frame, randomised=randomised)

    def _predictions(self, where: str, then: pd.DataFrame, now: pd.DataFrame) -> None:
        import numpy as np

        stored, found = then["margin"].to_numpy(float), now["margin"].to_numpy(float)
        near = np.minimum(abs(stored), abs(found)) < FLIP_MARGIN
        flips = (then["broken"] != now["broken"]).to_numpy() & ~near
        moved = ~np.isclose(stored, found, rtol=FLIP_MARGIN, atol=FLIP_MARGIN, equal_nan=True)
        for row in (flips | moved).nonzero()[0][:NAMED]:
            self._faults.append(
                f"{where}: example {then['index'].iloc[row]} has a margin of {found[row]:.6g}, "
                f"stored {stored[row]:.6g}"
            )

    def _searched(
        self, rebuilt: Rebuilt, then: pd.DataFrame, now: pd.DataFrame, *, randomised: bool
    ) -> None:
        for column in [name for name in now.columns if name not in (*GIVEN, *UNORDERED)]:
            about = _Compared(rebuilt.task.cell.defense, rebuilt.task.cell.label, column)
            if column not in then:
                self._faults.append(f"{about.defense} × {about.attack}: {column} is not stored")
                continue
            signs = _signs(_numbers(then, column), _numbers(now, column))
            if randomised or column not in FIGURES:
                signs = [(total > 0) - (total < 0) for total in [sum(signs)]]
            self._signs[about] += [sign for sign in signs if sign]

    def faults(self) -> list[str]:
        """What differs by more than chance and rounding do."""
        tests = max(1, len(self._signs))
        found = list(self._faults)
        for about, signs in self._signs.items():
            higher, lower = signs.count(1), signs.count(-1)
            p = mcnemar(higher, lower)
            if p * tests < FALSE_ALARMS:
                found.append(
                    f"{about.defense} × {about.attack}: {about.column} is higher than computed "
                    f"again {higher} times and lower {lower} times: p = {p:.2g}"
                )
        return found


def _numbers(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column of numbers; counts of draws as fractions of all draws."""
    numbers: np.ndarray = frame[column].to_numpy(float)
    return numbers / frame["draws"].to_numpy(float) if column in DRAWN else numbers


def _signs(then: np.ndarray, now: np.ndarray) -> list[int]:
    """Where two columns of numbers differ beyond rounding, in which direction."""
    import numpy as np

    both = np.isfinite(then) & np.isfinite(now)
    apart = both & ~np.isclose(then, now, rtol=FLIP_MARGIN, atol=FLIP_MARGIN)
    return [1 if higher else -1 for higher in then[apart] > now[apart]]
