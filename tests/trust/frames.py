"""Cases made by hand: which attack broke which examples, and what probes measured."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bench import registry
from bench.api import PLANTED
from bench.errors import UsageError
from bench.record.outcomes import Totals
from bench.record.results import CellResult
from bench.record.schema import CLEAN, AttackRecord, CellRecord
from bench.run.menu import menu_of
from bench.threat import Epsilon, Norm
from bench.trust import Case

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bench.api import Flag
    from bench.record.schema import Cause

#: What the built-in attacks offer to an examination of images of 8x8 pixels.
MENU = menu_of(Norm.LINF, (1, 8, 8), 10)
N = 200
HEADLINE = "0.1"
#: Attacks that agree: what a gradient attack of each kind broke on an honest model.
HONEST = range(100)
#: Probes of a model without a fault.
GRADIENTS: dict[str, Any] = {
    "fidelity": 0.999,
    "no_gradient": 0,
    "zero_margin_gradient": 0,
    "zero_ce_gradient": 0,
    "unmeasured": 0,
}
BEHAVIOUR: dict[str, Any] = dict.fromkeys(
    (
        "prediction_flips_repeat",
        "logits_differ_repeat",
        "state_differs",
        "prediction_differs_alone",
        "prediction_differs_shuffled",
        "optimises_in_forward",
        "probability_output",
        "one_hot_output",
        "nonfinite_near",
        "unstable",
        "input_jump",
        "border_jump",
        "unmeasured",
    ),
    0,
)
#: What searched planted examples, and found them.
PLANTS: dict[str, Any] = {
    "planted": 1,
    "planted_by_chance": 0,
    f"{PLANTED}apgd-ce": 1,
    f"{PLANTED}margin-pgd[restarts=3]": 1,
    f"{PLANTED}adaptive[preset=light]": 1,
    "unmeasured": 0,
}
TRACE: dict[str, Any] = {"silent_success": 0, "incomplete": 0, "worsened": 0.03}


def frame(
    broken: Iterable[int] = (),
    *,
    n: int = N,
    distance: float = 0.1,
    draws: int = 1,
    share: float = 1.0,
    wrong: Iterable[int] = (),
    attacked: Iterable[int] | None = None,
    **extra: Any,
) -> pd.DataFrame:
    """The outcomes of a cell.

    Args:
        broken: the examples that the attack broke.
        n: all examples.
        distance: of its adversarial examples.
        draws: of the model, on which each example is judged.
        share: of those, the wrong ones where the example is broken; else none is.
        wrong: clean errors.
        attacked: those tried; all that are right where None.
        extra: columns of `Proposal.extra`: one value for all, or {example: value} over 0.
    """
    errors = np.isin(np.arange(n), list(wrong))
    tried = ~errors if attacked is None else np.isin(np.arange(n), list(attacked))
    hit = np.isin(np.arange(n), list(broken)) & tried
    columns: dict[str, Any] = {
        "index": np.arange(n),
        "label": np.zeros(n, dtype=int),
        "attacked": tried,
        "broken": hit | errors,
        "distance_linf": np.where(errors, 0.0, np.where(hit, distance, np.nan)),
        "draws": np.full(n, draws),
    }
    for column in ("choice_wrong_draws", "wrong_draws"):
        columns[column] = np.round(columns["broken"] * draws * share).astype(int)
    for name, value in extra.items():
        values = np.full(n, 0.0)
        if isinstance(value, dict):
            for example, number in value.items():
                values[example] = number
        else:
            values[:] = value
        columns[f"extra_{name}"] = np.where(tried, values, np.nan)
    return pd.DataFrame(columns)


def at(examples: Iterable[int], value: float = 1.0) -> dict[int, float]:
    """The same value at these examples."""
    return dict.fromkeys(examples, value)


def case(
    cells: Mapping[Any, pd.DataFrame] | None = None,
    *,
    n: int = N,
    classes: int = 10,
    rounds: Iterable[int] = (),
    failures: Iterable[tuple[str, str, Cause]] = (),
    flags: Mapping[str, Flag] | None = None,
    **more: Any,
) -> Case:
    """A case, its attacks as the built-in ones declare themselves.

    Args:
        cells: by attack, or by (attack, epsilon) or (attack, epsilon, repeat).
        n: all examples.
        classes: of the model.
        rounds: how many examples each round of escalation broke, of those broken by others.
        failures: (attack, epsilon, cause) of each cell that failed.
        flags: what attacks said.
        more: fields of the case.
    """
    name = more.pop("name", "mine")
    at_headline = Epsilon.parse(HEADLINE)
    found = {(CLEAN, "0", 0): frame(n=n)}
    for key, table in (cells or {}).items():
        place = key if isinstance(key, tuple) else (key,)
        attack, epsilon, repeat = place + ("", HEADLINE, 0)[len(place) :]
        found[attack, "0" if attack == CLEAN else epsilon, repeat] = table
    said = flags or {}
    results = [
        CellResult(
            CellRecord(defense=name, attack=attack, epsilon=epsilon, repeat=repeat, key=""),
            table,
            Totals(),
            (said[attack],) if attack in said else (),
        )
        for (attack, epsilon, repeat), table in found.items()
    ]
    for number, broken in enumerate(rounds, start=1):
        cell = CellRecord(
            defense=name, attack="autoattack", epsilon=HEADLINE, repeat=number, round=number, key=""
        )
        results.append(CellResult(cell, frame(range(broken), n=n), Totals()))
    settings: dict[str, Any] = {
        "name": name,
        "norm": Norm.LINF,
        "headline": at_headline,
        "epsilons": (at_headline,),
        "results": results,
        "attacks": declared([*(attack for attack, *_ in found), *(a for a, *_ in failures)]),
        "failures": [
            CellRecord(
                defense=name, attack=a, epsilon=e, key="", status="failed", cause=c, reason="why"
            )
            for a, e, c in failures
        ],
    }
    return Case(**{**settings, "n": n, "classes": classes, **more})


def declared(attacks: Iterable[str]) -> dict[str, AttackRecord]:
    """What these attacks declare, and those that an examination may ask for."""
    found = {}
    for name in [*attacks, *MENU.names]:
        with contextlib.suppress(UsageError):
            found[name] = AttackRecord.of(registry.attacks.create(name))
    return found


def honest(**changed: pd.DataFrame) -> dict[Any, pd.DataFrame]:
    """All that a run of an honest model has at the headline epsilon."""
    return {
        "probe-gradients": frame(**GRADIENTS),
        "probe-behaviour": frame(**BEHAVIOUR),
        "probe-planted": frame(attacked=range(50), **PLANTS),
        "fgsm": frame(range(80)),
        "pgd": frame(range(98)),
        "pgd[steps=80]": frame(range(99)),
        "uniform-noise[draws=100]": frame(range(20)),
        "apgd-ce": frame(HONEST),
        "apgd-t": frame(HONEST),
        "margin-pgd": frame(HONEST, **TRACE),
        "square": frame(range(90)),
        "fd-pgd": frame(range(95)),
        "adaptive": frame(HONEST),
        "quantised-pgd": frame(range(85)),
        ("margin-pgd", "0.5"): frame(range(195), distance=0.5),
        ("margin-pgd", "1"): frame(range(N), distance=0.7),
        **changed,
    }
