"""Two runs side by side: paired differences on the same examples, and what else is not the same.

Pairs are examples: what is compared is whether each of them is robust in one run and in the
other, so that the sampling of the examples, which both share, does not blur the difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import UnknownNameError, UsageError
from bench.record.statistics import mcnemar, paired_interval, paired_t
from bench.threat import TOLERANCE, Epsilon

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.report.writing import Summary

CLEAN = "clean"

#: Of `provenance`, what a reader has to know when it differs.
ORIGIN = ("commit", "python", "platform", "device", "device_name", "instructions")


def compare_runs(
    first: Summary, second: Summary, defenses: Sequence[str] = (), folders: Sequence[Path] = ()
) -> dict[str, Any]:
    """The paired comparison of two runs, ready for JSON.

    Args:
        first: the summary of a run.
        second: of another, or of the same for two defenses of it.
        defenses: none for all that both have; one that both have; or one of each.
        folders: where the two lie. Attacks are no part of an id: runs of one id are two where they
            lie in two folders. Without folders they are one.

    Returns:
        `runs`, `names` (what to call them: their ids in short, or folders where these are one),
        `data_digest`, `dataset`, `norm`, `n`, `differences` (what else differs between the
        runs: a `what` with its two values) and `pairs`; of each pair the `defenses`, its own
        `differences`, `notes`, and by epsilon, after `clean`, the two accuracies, the `difference`
        (first minus second) with its 95 % interval, the discordant examples, `p` and its `test`.

    Raises:
        UsageError: the runs cannot be paired, or the defenses are not there; it says why.
    """
    called = _called(first, second, folders)
    _check_pairing(first, second, called)
    named = _pairs(first, second, list(defenses), called)
    return {
        "runs": [first["run"], second["run"]],
        "names": called,
        "dataset": first["dataset"],
        "data_digest": first["data_digest"],
        "norm": first["norm"],
        "n": first["n"],
        "differences": _unlike(_circumstances(first), _circumstances(second)),
        "pairs": [_pair(first, second, *names) for names in named],
    }


def _called(first: Summary, second: Summary, folders: Sequence[Path]) -> list[str]:
    """What to call the two runs: the same where they are one."""
    places = {folder.resolve() for folder in folders}
    if first["run"] == second["run"] and len(places) > 1:
        return [str(folder) for folder in folders]
    return [first["run"][:8], second["run"][:8]]


def _check_pairing(first: Summary, second: Summary, called: list[str]) -> None:
    """Refuse what would compare two things at once, or unlike figures."""
    ids = f"{' and '.join(called)} cannot be paired"
    if first["data_digest"] != second["data_digest"]:
        sides = [f"{s['dataset']}, n = {s['n']}, {s['data_digest'][:12]}" for s in (first, second)]
        raise UsageError(
            f"{ids}: they are on other examples ({sides[0]}; {sides[1]}); run both on the same "
            "--dataset with the same --n"
        )
    if first["norm"] != second["norm"]:
        raise UsageError(f"{ids}: one is in {first['norm']} and the other in {second['norm']}")
    for key in ("version", "precision"):
        sides = [summary["judging"].get(key) for summary in (first, second)]
        if sides[0] != sides[1]:
            raise UsageError(
                f"{ids}: what counts as adversarial was decided by other rules (judging {key} "
                f"{sides[0]} and {sides[1]}); run the older one again"
            )


def _all(summary: Summary) -> dict[str, Any]:
    """Every defense of a run, controls last."""
    return {**summary["defenses"], **summary.get("controls", {})}


def _pairs(
    first: Summary, second: Summary, names: list[str], called: list[str]
) -> list[tuple[str, str]]:
    if len(names) > 2:
        raise UsageError(f"--defense takes one name, or one for each run; got {len(names)}")
    itself = called[0] == called[1]
    if not names:
        common = [name for name in first["defenses"] if name in second["defenses"]]
        if itself:
            raise UsageError(
                "both runs are the same one: name two of its defenses, such as --defense kwta,relu"
            )
        if not common:
            raise UsageError(
                f"the runs have no defense in common ({', '.join(first['defenses'])}; "
                f"{', '.join(second['defenses'])}); name one of each, such as --defense kwta,relu"
            )
        return [(name, name) for name in sorted(common)]
    pair = names[0], names[-1]
    for name, summary, run in zip(pair, (first, second), called, strict=True):
        if name not in _all(summary):
            raise UnknownNameError(f"defense of run {run}", name, _all(summary))
    if itself and pair[0] == pair[1]:
        raise UsageError(f"{pair[0]} of one run is not compared with itself; name another defense")
    return [pair]


def _pair(first: Summary, second: Summary, one: str, other: str) -> dict[str, Any]:
    ours, theirs = _all(first)[one], _all(second)[other]
    for name, part in ((one, ours), (other, theirs)):
        if part.get("critical") is None:
            raise UsageError(f"{name} has no outcomes to compare: it has no clean predictions")
    written = {Epsilon.parse(epsilon): epsilon for epsilon in theirs["worst_case"]}
    shared = [epsilon for epsilon in ours["worst_case"] if Epsilon.parse(epsilon) in written]
    if not shared:
        raise UsageError(
            f"{one} and {other} have no epsilon in common ({', '.join(ours['worst_case'])}; "
            f"{', '.join(theirs['worst_case'])}); run one of them again with --eps of the other"
        )
    epsilons = {CLEAN: _difference(_side(ours, CLEAN, 0.0), _side(theirs, CLEAN, 0.0))}
    for epsilon in sorted(shared, key=lambda text: float(Epsilon.parse(text))):
        limit = float(Epsilon.parse(epsilon)) + TOLERANCE
        sides = (
            ours["worst_case"][epsilon],
            theirs["worst_case"][written[Epsilon.parse(epsilon)]],
        )
        found = _difference(
            _side(ours, epsilon, limit), _side(theirs, written[Epsilon.parse(epsilon)], limit)
        )
        epsilons[epsilon] = {**found, "complete": [side["complete"] for side in sides]}
    headline = first["headline"] if first["headline"] in epsilons else shared[-1]
    verdicts = (
        ours["worst_case"][headline].get("verdict"),
        theirs["worst_case"][written[Epsilon.parse(headline)]].get("verdict"),
    )
    differing = _defense_differences(ours, theirs) + _unlike(*({"verdict": v} for v in verdicts))
    return {
        "defenses": [one, other],
        "headline": headline,
        "epsilons": epsilons,
        "differences": differing,
        "notes": _notes(ours, theirs, differing, itself=one == other),
    }


class _Side(NamedTuple):
    """How one defense does on each example at an epsilon."""

    robust: list[bool]
    """By most draws where it is randomised."""
    right: list[float] | None
    """Of a randomised defense, in which share of its draws."""


def _side(part: dict[str, Any], epsilon: str, limit: float) -> _Side:
    """A defense at an epsilon, as its run writes it; `limit` is the largest norm that counts."""
    robust = [d is None or d > limit for d in part["critical"]]
    return _Side(robust, part.get("right", {}).get(epsilon))


def _difference(ours: _Side, theirs: _Side) -> dict[str, Any]:
    """Who withstands what, example by example."""
    n = len(ours.robust)
    gained = sum(a and not b for a, b in zip(ours.robust, theirs.robust, strict=True))
    lost = sum(b and not a for a, b in zip(ours.robust, theirs.robust, strict=True))
    difference = (gained - lost) / n
    (low, high), p, test = paired_interval(gained, lost, n), mcnemar(gained, lost), "McNemar"
    rights = [side.right or [float(robust) for robust in side.robust] for side in (ours, theirs)]
    if ours.right or theirs.right:
        difference, low, high, p, test = paired_t([a - b for a, b in zip(*rights, strict=True)])
    return {
        "first": sum(rights[0]) / n,
        "second": sum(rights[1]) / n,
        "difference": difference,
        "low": low,
        "high": high,
        "only_first": gained,
        "only_second": lost,
        "p": p,
        "test": test,
    }


def _unlike(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """Where two sides have other values."""
    return [
        {"what": what, "first": first.get(what), "second": second.get(what)}
        for what in dict.fromkeys([*first, *second])
        if first.get(what) != second.get(what)
    ]


def _circumstances(summary: Summary) -> dict[str, Any]:
    """How a run was done."""
    origin = summary.get("provenance", {})
    return {
        "seed": summary["seed"],
        "epsilons": ", ".join(summary["epsilons"]),
        "headline": summary["headline"],
        "judged on": summary["judging"].get("device"),
        "sweep": summary.get("sweep"),
        "--budget": summary.get("limit"),
        "--escalation-budget": summary.get("budget"),
        **{name.replace("_", " "): origin.get(name) for name in ORIGIN},
        **{f"{name} version": version for name, version in origin.get("versions", {}).items()},
    }


def _defense_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[dict[str, Any]]:
    """Where two defenses are not the same, or were not attacked alike."""
    keys = {"weights": "weights_digest", "network": "network", "twin": "twin"}
    found = _unlike(
        *({what: part.get(key) for what, key in keys.items()} for part in (ours, theirs))
    )
    sides = [
        {
            attack
            for attack, cells in part["attacks"].items()
            if any(cell["status"] != "skipped" and not cell["escalated"] for cell in cells.values())
        }
        for part in (ours, theirs)
    ]
    if sides[0] != sides[1]:
        only = [sorted(sides[0] - sides[1]), sorted(sides[1] - sides[0])]
        found.append({"what": "attacks", "first": only[0], "second": only[1]})
    return found


def _notes(
    ours: dict[str, Any], theirs: dict[str, Any], differing: list[dict[str, Any]], *, itself: bool
) -> list[str]:
    """What a reader must not overlook; `itself` where both are the defense of one name."""
    notes = []
    if any(item["what"] == "attacks" for item in differing):
        notes.append(
            "The two were not attacked alike: the difference may be that of the attacks. Run both "
            "with the same --attacks."
        )
    if ours["weights_digest"] == theirs["weights_digest"]:
        notes.append(
            "The weights are the same: what differs is how they were attacked, not a defense."
            if itself
            else "The weights are the same: one stands on what was trained for the other."
        )
    else:
        notes.append(
            "One checkpoint a side: this holds for these two checkpoints. Training seeds are "
            "compared with run --seeds."
        )
    randomised = [
        part
        for part in (ours, theirs)
        if any("majority_accuracy" in worst for worst in part["worst_case"].values())
    ]
    if any("right" not in part for part in randomised):
        notes.append(
            "A randomised defense of an older run counts as robust on an example where most draws "
            "are; its tables go by the mean over its draws."
        )
    elif randomised:
        notes.append(
            "A randomised defense is compared by the share of its draws, as in tables: interval "
            "and p are those of a paired t-test, or of the sign test where all examples differ "
            "alike; `only first` and `only second` go by most draws."
        )
    return notes
