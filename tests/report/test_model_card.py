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
    "\N{GRINNING FACE}",
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


@pytest.mark.parametrize("small", [1e-05, 0.0001, 2 / 3])
def test_the_card_is_json_that_yaml_reads_alike(small: float) -> None:
    """Figures have four digits: YAML takes a number with an exponent and no point for text."""
    text = model_card(summary(clean_accuracy=small), NAME)
    _, block, _ = text.split("---\n")
    content = json.loads(block)

    (result,) = content["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == round(small, 4)
    assert content == pytest.importorskip("yaml").safe_load(block)
