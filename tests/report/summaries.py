"""A summary as a run leaves it, for tests of what becomes of it."""

from __future__ import annotations

from typing import Any

from bench.record.older import upgraded

NAME = "kwta[gamma=0.2]"
ROWS = ["apgd-ce", "apgd-t", "fab-t", "square"]


def cell(**changed: Any) -> dict[str, Any]:
    """A finished cell of a row."""
    row = {"status": "ok", "scope": "all", "escalated": False, "robust_accuracy": 0.5}
    return {**row, "attacked": 180, "broken": 80, "reason": "", **changed}


def summary(**changed: Any) -> dict[str, Any]:
    """A run of one defense on CIFAR-10, with AutoAttack's rows."""
    part = {
        "network": "resnet18 <b>",
        "weights_digest": "w" * 64,
        "clean_accuracy": 0.9,
        "clean_correct": 180,
        "worst_case": {
            "8/255": {
                "robust_accuracy": 0.345, "low": 0.28, "high": 0.41, "complete": True,
                "verdict": "unreliable",
            }
        },
        "attacks": {name: {"8/255": cell()} for name in ROWS},
        "suites": {"standard": {"8/255": {"robust_accuracy": 0.4, "attacks": ROWS}}},
        "verdict": {"level": "unreliable", "reasons": ["Gradients mislead: x < y."]},
        "evidence": [
            {"id": "gradient-fidelity", "status": "fail", "kind": "soft"},
            {"id": "twin-comparison", "status": "fail", "kind": "context"},
            {"id": "more-steps", "status": "pass", "kind": "soft"},
        ],
        **changed,
    }  # fmt: skip
    content = {
        "schema": 1,
        "run": "0123456789abcdef",
        "dataset": "cifar10",
        "data_digest": "d" * 64,
        "norm": "Linf",
        "n": 200,
        "seed": 0,
        "epsilons": ["8/255"],
        "headline": "8/255",
        "defenses": {NAME: part},
        "controls": {},
        "provenance": {"versions": {"winnow-bench": "0.1.0"}},
    }
    return upgraded(content)
