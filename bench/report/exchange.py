"""A stored run in the forms that others read, written only where there is none yet.

Of a defense: RobustBench's `model_info`, and a model card's metadata. Only what the run knows is
filled in. What it does not know, such as authors and venue, is empty as the form has it, unless the
caller says it.
"""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import StoreError, UnknownNameError, UsageError
from bench.record.files import canonical_json, write_bytes
from bench.record.results import outcomes_frame, read_cells
from bench.record.runs import stored_summary
from bench.record.store import open_run
from bench.record.summary import NOT_EXAMINED, examinations
from bench.report.cells import cell
from bench.report.markdown import strongest
from bench.report.writing import interval
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from pathlib import Path

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

Form = Literal["robustbench", "hf", "csv", "json"]


def export_run(
    folder: Path,
    target: Path,
    forms: Collection[Form],
    *,
    epsilon: str = "",
    info: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write a run in other forms; nothing is written unless everything can be.

    - `robustbench`: `model_info/DATASET/NORM/DEFENSE.json` for each defense.
    - `hf`: `huggingface/DEFENSE.md`, a model card's metadata, for each defense.
    - `csv`: `outcomes.csv`, a row for each defense, attack, epsilon and example.
    - `json`: `summary.json`.

    Args:
        folder: of a run, or of a published summary, which has no outcomes.
        target: the folder to write into.
        forms: at least one.
        epsilon: that `robustbench` is about; the headline where empty.
        info: what only the authors know, for `robustbench`.
        overwrite: whether files that are there are replaced.

    Returns:
        The paths of what was written.

    Raises:
        UsageError: no form, a file that is there already, or a figure that is not.
        StoreError: the run was changed since it was written, or has no outcomes.
    """
    if not forms:
        raise UsageError("say in which form: --robustbench, --hf, --csv or --json")
    summary = stored_summary(folder)
    stems = file_stems(summary["defenses"])
    files: dict[Path, bytes] = {}
    if "robustbench" in forms:
        chosen = find_epsilon(summary, epsilon)
        (dataset,) = file_stems([summary["dataset"]]).values()
        for name, stem in stems.items():
            place = target / "model_info" / dataset / summary["norm"] / f"{stem}.json"
            files[place] = canonical_json(robustbench_info(summary, name, chosen, info))
    if "hf" in forms:
        for name, stem in stems.items():
            files[target / "huggingface" / f"{stem}.md"] = model_card(summary, name).encode()
    if "csv" in forms:
        if not (folder / "run.json").is_file():
            raise StoreError(f"{folder} is a published summary: it holds no outcomes for --csv")
        outcomes = outcomes_frame(read_cells(*open_run(folder)))
        for column in (c for c in outcomes if outcomes[c].dtype.kind == "O"):
            safe = {value: cell(value) for value in outcomes[column].unique()}  # few values, often
            outcomes[column] = outcomes[column].map(safe)
        files[target / "outcomes.csv"] = outcomes.to_csv(index=False).encode()
    if "json" in forms:
        files[target / "summary.json"] = canonical_json(summary)
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there and not overwrite:
        raise UsageError(
            f"{there[0]} is there already; give --overwrite to replace it, or another --to"
        )
    for path, data in files.items():
        write_bytes(path, data)
    return list(files)


def find_epsilon(summary: Summary, written: str) -> str:
    """The epsilon of a run that a text means, as the run writes it; the headline for an empty one.

    Raises:
        UsageError: the run has no such epsilon.
    """
    if not written:
        return str(summary["headline"])
    wanted = Epsilon.parse(written)
    for epsilon in summary["epsilons"]:
        if Epsilon.parse(epsilon) == wanted:
            return str(epsilon)
    raise UsageError(
        f"the run has no epsilon {written}; it has {', '.join(summary['epsilons'])}: run it again "
        f"with --eps {written}"
    )


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


def model_card(summary: Summary, name: str) -> str:
    """The metadata block of a Hugging Face model card: its `model-index` between lines of `---`.

    It is JSON, which YAML reads. Accuracies are fractions of 1; each robust one says in `args` what
    it rests on.
    """
    part = summary["defenses"][name]
    n = summary["n"]
    metrics = [
        {
            "type": "accuracy",
            "name": "Clean accuracy",
            "value": _rounded(part["clean_accuracy"]),
            "args": {"examples": n},
        }
    ]
    for epsilon in summary["epsilons"]:
        worst = part["worst_case"][epsilon]
        origin = {
            "norm": summary["norm"],
            "epsilon": epsilon,
            "examples": n,
            "low": _rounded(worst["low"]),
            "high": _rounded(worst["high"]),
            "complete": worst["complete"],
            "verdict": worst.get("verdict"),
            "run": summary["run"],
            "data_digest": summary["data_digest"],
            "weights_digest": part["weights_digest"],
        }
        metrics.append(
            {
                "type": "robust_accuracy",
                "name": f"Robust accuracy, worst case, {summary['norm']} {epsilon}",
                "value": _rounded(worst["robust_accuracy"]),
                "args": {key: value for key, value in origin.items() if value is not None},
            }
        )
    dataset = {"type": summary["dataset"], "name": summary["dataset"]}
    if summary["dataset"] != "inputs":  # what a program passed is no split of anything
        dataset["split"] = "test"
    result = {
        "task": {"type": "image-classification", "name": "Image Classification"},
        "dataset": dataset,
        "metrics": [metric for metric in metrics if metric["value"] is not None],
    }
    content = {
        "tags": ["adversarial-robustness"],
        "metrics": ["accuracy"],
        "model-index": [{"name": name, "results": [result]}],
    }
    text = json.dumps(content, indent=2, ensure_ascii=False)
    # Characters that YAML takes only when they are escaped.
    text = "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)
    return f"---\n{text}\n---\n"


def _rounded(fraction: float | None) -> float | None:
    """To four digits: JSON writes smaller numbers with an exponent, which YAML takes for text."""
    return None if fraction is None else round(fraction, 4)


def file_stems(names: Iterable[str]) -> dict[str, str]:
    """File names for defenses, each its own: `kwta[gamma=0.2]` is `kwta_gamma-0.2`.

    No name can leave its folder: letters, digits, dots, hyphens and underscores remain.
    """
    stems: dict[str, str] = {}
    for name in sorted(names):
        stem = name.replace("=", "-").replace("[", "_").replace(",", "_").rstrip("]")
        stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-_")[:100] or "defense"
        taken = {known.lower() for known in stems.values()}
        number, free = 1, stem
        while free.lower() in taken:
            number += 1
            free = f"{stem}-{number}"
        stems[name] = free
    return stems
