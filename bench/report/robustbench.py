"""A defense of a run as RobustBench keeps it: its `model_info`."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

from bench.errors import UnknownNameError, UsageError
from bench.record.summary import NOT_EXAMINED, examinations
from bench.report.markdown import strongest
from bench.report.writing import interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from bench.report.writing import Summary

#: What suites and attacks give (`figures` of a summary) that RobustBench has a field for.
AUTOATTACK = "autoattack"

#: What RobustBench's own loader knows: other data and norms are written, and not read by it.
ROBUSTBENCH_DATA = ("cifar10", "cifar100", "imagenet")
ROBUSTBENCH_NORMS = ("Linf", "L2")

#: What only the authors know, and what it is where nobody says it.
INFO: dict[str, Any] = {
    "link": "",
    "name": None,  # the title of the paper; the defense's name where nobody says it
    "authors": "",
    "venue": "",
    "additional_data": None,
    "number_forward_passes": None,
    "reported": None,
}

#: How what is not any text is written, in a pattern and in words, and what reads it.
_WRITTEN: dict[str, tuple[str, str, Callable[[str], Any]]] = {
    "additional_data": ("true|false", "true or false", lambda text: text == "true"),
    "number_forward_passes": (r"\d+", "a whole number", int),
    "reported": (r"\d{1,3}(\.\d+)?", "a percentage such as 52.4", str),
}


def parse_info(texts: Iterable[str]) -> dict[str, Any]:
    """What the authors say of a model, from `KEY=VALUE` each.

    Raises:
        UsageError: not of that form, an unknown key, or a value of another type.
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--info wants KEY=VALUE (got {text!r})")
        if key not in INFO:
            raise UnknownNameError("key of --info", key, INFO)
        pattern, wanted, read = _WRITTEN.get(key, (None, "", str))
        if pattern and not re.fullmatch(pattern, value):
            raise UsageError(f"--info {key} has to be {wanted} (got {value!r})")
        found[key] = read(value)
    return found


def robustbench_info(
    summary: Summary, name: str, epsilon: str, info: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The `model_info` of one defense, as RobustBench keeps it; accuracies are strings in percent.

    `external`, RobustBench's best known robust accuracy, is the worst case. `autoattack_acc` is
    there where AutoAttack's standard version attacked every example at this epsilon, and
    `unreliable` where there is a verdict: whether it doubts the figure. `footnote` names the
    evidence.

    Args:
        summary: of the run.
        name: of one of its defenses.
        epsilon: of the run, as written.
        info: what only the authors know, by `INFO`'s keys.

    Raises:
        UsageError: the defense has no worst case at this epsilon.
    """
    part = summary["defenses"][name]
    worst = part["worst_case"][epsilon]
    if worst["robust_accuracy"] is None:
        raise UsageError(
            f"{name} has no robust accuracy at {epsilon}: its clean predictions failed"
        )
    said = {**INFO, **(info or {})}
    found = {
        "link": said["link"],
        "name": html.escape(said["name"] or name, quote=False),
        "authors": html.escape(said["authors"], quote=False),
        "additional_data": said["additional_data"],
        "number_forward_passes": said["number_forward_passes"],
        "dataset": summary["dataset"],
        "venue": html.escape(said["venue"], quote=False),
        "architecture": html.escape(part["network"], quote=False),
        "eps": epsilon,
        "clean_acc": _in_percent(part["clean_accuracy"]),
    }
    if said["reported"] is not None:
        found["reported"] = said["reported"]
    standard = autoattack_accuracy(summary, name, epsilon)
    if standard is not None:
        found["autoattack_acc"] = _in_percent(standard)
    found["external"] = _in_percent(worst["robust_accuracy"])
    if worst.get("verdict") not in (None, NOT_EXAMINED):
        found["unreliable"] = worst["verdict"] in ("suspect", "unreliable")
    found["footnote"] = html.escape(_footnote(summary, name, epsilon), quote=False)
    return found


def autoattack_accuracy(summary: Summary, name: str, epsilon: str) -> float | None:
    """Robust accuracy under AutoAttack's standard version, all examples attacked; else None.

    It is what its four attacks leave together as rows, or what its cascade leaves where nothing
    was taken from it beforehand. The standard version is not for randomised defenses. The row of
    FAB-T counts what breaks inside the ball after projection, too, which AutoAttack drops: together
    the rows may leave less than it does, and never more.
    """
    part = summary["defenses"][name]
    if "majority_accuracy" in part["worst_case"][epsilon]:
        return None
    names = [name for name, figure in summary["figures"].items() if figure == AUTOATTACK]
    for name in names:
        together = part.get("suites", {}).get(name, {}).get(epsilon)
        if together and together["whole"]:
            return float(together["robust_accuracy"])
    right = part["clean_correct"]
    for name in names:
        cascade = part["attacks"].get(name, {}).get(epsilon)
        if cascade and cascade["status"] == "ok" and cascade["attacked"] == right:
            return float((right - cascade["broken"]) / summary["n"])
    return None


def _footnote(summary: Summary, name: str, epsilon: str) -> str:
    """What the figure rests on, in plain sentences."""
    part = summary["defenses"][name]
    worst = part["worst_case"][epsilon]
    attacks = [
        attack
        for attack, cells in part["attacks"].items()
        if epsilon in cells and cells[epsilon]["status"] == "ok"
    ]
    version = summary["provenance"].get("versions", {}).get("winnow-bench", "")
    sentences = [
        f"Evaluated by Winnow {version}, run {summary['run']}, on {summary['n']} examples at "
        f"{summary['norm']} {epsilon}: {interval(worst)} % remain (95 % interval) in the "
        f"per-example worst case over {len(attacks)} attacks; lowest row "
        f"{strongest(part, epsilon)}."
    ]
    if not worst["complete"]:
        sentences.append("Some cells did not finish: the worst case may be lower.")
    examined = examinations(summary, part)
    if epsilon in examined:
        verdict = examined[epsilon]["verdict"]
        sentences += [f"Verdict: {verdict['level']}.", *verdict["reasons"]]
        failed = [
            item["id"]
            for item in examined[epsilon].get("evidence", [])
            if item.get("status") == "fail" and item.get("kind") != "context"
        ]
        if failed:
            sentences.append(f"Failed tests: {', '.join(failed)}.")
    elif worst.get("verdict"):
        sentences.append(f"Verdict: {worst['verdict']}.")
        at = ", ".join(examined)
        gathered = f"at {summary['norm']} {at} only" if at else "at no epsilon"
        sentences.append(f"Evidence on these outcomes was gathered {gathered}.")
    return " ".join(sentences)


def _in_percent(fraction: float) -> str:
    return f"{100 * fraction:.2f}"
