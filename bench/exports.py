"""Exporting a stored run: its files in other forms, written only where there is none yet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bench.errors import StoreError, UsageError
from bench.record.files import canonical_json, write_bytes
from bench.record.runs import stored_summary
from bench.report.exchange import choose_epsilon, file_stems, model_card, robustbench_info
from bench.run import load_results

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

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
        chosen = choose_epsilon(summary, epsilon)
        (dataset,) = file_stems([summary["dataset"]]).values()
        place = target / "model_info" / dataset / summary["norm"]
        for name, stem in stems.items():
            content = robustbench_info(summary, name, chosen, info)
            files[place / f"{stem}.json"] = canonical_json(content)
    if "hf" in forms:
        for name, stem in stems.items():
            files[target / "huggingface" / f"{stem}.md"] = model_card(summary, name).encode()
    if "csv" in forms:
        if not (folder / "run.json").is_file():
            raise StoreError(f"{folder} is a published summary: it holds no outcomes for --csv")
        files[target / "outcomes.csv"] = load_results(folder).outcomes.to_csv(index=False).encode()
    if "json" in forms:
        files[target / "summary.json"] = canonical_json(summary)
    there = [path for path in files if path.exists() or path.is_symlink()]
    if there and not overwrite:
        raise UsageError(
            f"{there[0]} is there already; give --overwrite to replace it, or another --to"
        )
    for path, content_bytes in files.items():
        write_bytes(path, content_bytes)
    return list(files)
