"""Accuracy under common corruptions as Markdown: by kind and severity, and means."""

from __future__ import annotations

from typing import Any

from bench.report.writing import escape, interval, percent, table

Report = dict[str, Any]


def render_corruptions(report: Report) -> str:
    """What `corruptions.json` holds, as a page.

    Args:
        report: its content.
    """
    parts = [f"# Corruptions of {escape(report['dataset'])}", _means(report), _about(report)]
    parts += [_kinds(report, name) for name in report["defenses"]]
    return "\n\n".join(parts) + "\n"


def _means(report: Report) -> str:
    """A line for each defense: clean, corrupted, and attacked."""
    rows = []
    for name, entry in report["defenses"].items():
        mean = entry["mean"]
        figure = interval({"robust_accuracy": None} if mean is None else _as_figure(mean))
        rows.append([escape(name), percent(entry["clean_accuracy"]), figure, _adversarial(entry)])
    header = ["defense", "clean", "mean corruption", "worst case under attack"]
    return table(header, rows, text=frozenset({"defense", "worst case under attack"}))


def _as_figure(mean: dict[str, float]) -> dict[str, float]:
    return {"robust_accuracy": mean["accuracy"], "low": mean["low"], "high": mean["high"]}


def _adversarial(entry: dict[str, Any]) -> str:
    found = [
        f"{interval(figure)} at {escape(figure['epsilon'])} {escape(figure['norm'])}"
        + (f", {escape(figure['verdict'])}" if figure["verdict"] else "")
        + ("" if figure["complete"] else " †")
        + f" ({escape(figure['dataset'])}, run {escape(figure['run'][:8])})"
        for figure in entry["adversarial"]
    ]
    return "; ".join(found) or "no run of these weights"


def _about(report: Report) -> str:
    """What the figures are of."""
    kinds = {kind for entry in report["defenses"].values() for kind in entry["mean_of"]}
    made = "as files hold them" if report["made_by"] == "files" else (
        f"made by {escape(report['made_by'])} with ImageNet-C's severities: comparable with one "
        "another, not with figures on CIFAR-10-C's files"
    )  # fmt: skip
    return (
        f"Accuracy in percent on {report['n']} images, the same ones in each kind and severity, "
        f"{made}. The mean is over {len(kinds)} of the 15 common kinds and severities 1 to 5, its "
        "95 % interval over images. Corruptions are drawn, not searched for: they say nothing on "
        "the worst case, and count in none. † not all of that run is done."
    )


def _kinds(report: Report, name: str) -> str:
    entry = report["defenses"][name]
    severities = sorted({s for row in entry["accuracy"].values() for s in row})
    rows = []
    for kind, row in entry["accuracy"].items():
        mean = sum(row.values()) / len(row)
        mark = "" if kind in entry["mean_of"] else " (in no mean)"
        rows.append([escape(kind) + mark, *(percent(row[s]) for s in severities), percent(mean)])
    header = ["kind", *(f"severity {s}" for s in severities), "mean"]
    return f"## {escape(name)}\n\n" + table(header, rows, text=frozenset({"kind"}))
