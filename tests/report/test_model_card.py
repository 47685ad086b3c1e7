"""The card for Hugging Face: YAML by its own parser, and the Hub's library, where installed."""

from __future__ import annotations

import json

import pytest

from bench.report.exchange import model_card
from tests.report.summaries import NAME, summary

AWKWARD = [
    "a: b # c",
    "- [x]",
    '"\\',
    "tab\tnew\nline",
    "ünï \u2028 \x85 \x7f \ufeff",
    "yes",
    "1e3",
    "",
]


def test_the_card_is_yaml_that_says_the_same() -> None:
    """Read back by PyYAML it is the figures and names, however awkward the names."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    content = summary()
    for name in AWKWARD:
        content["defenses"][name] = content["defenses"][NAME]
    for name in content["defenses"]:
        text = model_card(content, name)
        _, block, rest = text.split("---\n")
        (model,) = yaml.safe_load(block)["model-index"]
        (result,) = model["results"]
        metrics = result["metrics"]
        assert rest == ""
        assert model["name"] == name
        assert result["task"]["type"] == "image-classification"
        assert result["dataset"] == {"type": "cifar10", "name": "cifar10", "split": "test"}
        assert [metric["value"] for metric in metrics] == [0.9, 0.345]
        assert metrics[1]["args"]["verdict"] == "unreliable"
        assert metrics[1]["args"]["epsilon"] == "8/255"


def test_hugging_face_reads_the_card() -> None:
    """By the class that the Hub's own library reads cards with."""
    hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    card = hub.ModelCard(model_card(summary(), NAME), ignore_metadata_errors=False)

    assert card.data.model_name == NAME
    found = [(r.task_type, r.metric_type, r.metric_value) for r in card.data.eval_results]
    task = "image-classification"
    assert found == [(task, "accuracy", 0.9), (task, "robust_accuracy", 0.345)]


def test_the_card_without_a_parser() -> None:
    """Every line of the block is a key, a quoted text, or a number without an exponent."""
    content = summary(clean_accuracy=1e-05)
    block = model_card(content, NAME)

    assert block.startswith("---\n")
    assert block.endswith("\n---\n")
    assert "value: 0.00001\n" in block
    assert f"name: {json.dumps(NAME)}\n" in block
    for line in block.splitlines()[1:-1]:
        item = line.strip().removeprefix("- ")
        _, _, value = item.partition(": ")
        if not item.endswith(":"):  # else a key alone
            assert json.loads(item if item.startswith('"') else value) is not None
