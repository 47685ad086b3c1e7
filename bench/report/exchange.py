"""A stored run in the forms that others read, written only where there is none yet.

Of a defense: RobustBench's `model_info`, and a model card's metadata. Only what the run knows is
filled in. What it does not know, such as authors and venue, is empty as the form has it, unless the
caller says it.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Literal

from bench.errors import StoreError, UsageError
from bench.record.files import canonical_json, write_bytes
from bench.record.results import outcomes_frame, read_cells
from bench.record.runs import stored_summary
from bench.record.store import open_run
from bench.report.cells import cell
from bench.report.robustbench import robustbench_info
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping
    from pathlib import Path

    from bench.report.writing import Summary

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
