"""Several training seeds in one table, and one run for each."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bench import registry
from bench.data import open_dataset
from bench.defenses.activated import ReLU
from bench.defenses.recipes import Natural
from bench.errors import InputNotice, UsageError
from bench.models import checkpoints
from bench.record.statistics import t_interval
from bench.report.tables import render_seeds
from bench.run.config import RunConfig
from bench.run.seeds import check_seeds, run_seeds
from bench.train import TrainConfig, train

if TYPE_CHECKING:
    from bench.api import Recipe


def summary(robust: float, difference: float | None) -> dict[str, Any]:
    """What a run of one defense with these figures writes, as far as the table reads it."""
    comparison = {"difference": difference, "twin": "relu"} if difference is not None else None
    return {
        "dataset": "digits",
        "norm": "Linf",
        "headline": "0.1",
        "n": 100,
        "run": "0123456789abcdef",
        "defenses": {
            "kwta": {
                "clean_accuracy": robust + 0.5,
                "weights_digest": "fedcba9876543210",
                "comparison": comparison,
                "worst_case": {
                    "0.1": {
                        "robust_accuracy": robust,
                        "low": 0.0,
                        "high": 1.0,
                        "verdict": "suspect",
                    }
                },
            }
        },
    }


def test_mean_and_range_are_over_the_seeds() -> None:
    """Mean, lowest and highest of each figure, and each seed's own below."""
    text = render_seeds({0: summary(0.1, None), 1: summary(0.2, None), 5: summary(0.45, None)})

    assert "| kwta | 75.0 (60.0–95.0) | **25.0 (10.0–45.0)** | suspect |" in text
    assert "training seeds 0, 1, 5" in text
    assert "| kwta | 5 | 95.0 | 45.0 (0.0–100.0) | suspect | fedcba98 | 01234567 |" in text
    assert "twin" not in text


def test_gain_over_the_twin_has_a_t_interval_over_seeds() -> None:
    """Student's t of two degrees of freedom is 4.3027 at 97.5 %."""
    values = [-0.2, -0.1, -0.3]
    mean, low, high = t_interval(values)

    assert mean == pytest.approx(-0.2)
    assert high - mean == pytest.approx(4.30265 * 0.1 / math.sqrt(3), rel=1e-5)
    assert mean - low == pytest.approx(high - mean)
    text = render_seeds({i: summary(0.3, value) for i, value in enumerate(values)})
    assert "-20.0 points (by seed -20.0, -10.0, -30.0)" in text
    assert f"{100 * low:+.1f} to {100 * high:+.1f}, which includes no difference" in text
    sure = render_seeds({i: summary(0.3, -0.2 + i / 1000) for i in range(3)})
    assert "which excludes no difference" in sure


def test_seeds_that_gain_the_same_claim_nothing_about_others() -> None:
    """Of figures in steps of 1/n two are often equal, which says nothing of how seeds vary."""
    text = render_seeds({i: summary(0.3, -0.1) for i in range(2)})
    assert "t-interval" not in text
    assert "does not tell how much another one would" in text
    wide = render_seeds({i: summary(0.3, value) for i, value in enumerate([0.9, 0.1])})
    assert "-100.0 to +100.0, which includes" in wide


def test_one_seed_claims_nothing_about_others() -> None:
    """Without a second seed there is no interval."""
    assert "t-interval" not in render_seeds({0: summary(0.3, -0.2)})


@pytest.mark.parametrize("seeds", [[], [-1], [1, 1]])
def test_what_cannot_be_seeds_is_refused(seeds: list[int]) -> None:
    """None, a negative one, one twice."""
    with pytest.raises(UsageError, match="--seeds has to be different whole numbers from 0 up"):
        check_seeds(seeds)


class Quick(ReLU):
    """ReLU, trained for two epochs."""

    summary = "for tests"

    def recipe(self, family: str) -> Recipe:
        """Natural training, shorter."""
        recipe = Natural(family)
        recipe.schedule = recipe.schedule.with_epochs(2)
        return recipe


class Later(Quick):
    """Trained on from the weights of `quick`."""

    summary = "for tests"

    def recipe(self, family: str) -> Recipe:
        """The same, from other weights."""
        recipe = super().recipe(family)
        recipe.start = "quick"
        return recipe


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`quick` and `later` are defenses, and the working directory is empty."""
    monkeypatch.chdir(tmp_path)
    registry.defenses.names()
    known = {**registry.defenses._classes, "quick": Quick, "later": Later}
    monkeypatch.setattr(registry.defenses, "_classes", known)


@pytest.mark.usefixtures("plugins")
def test_weights_that_a_training_starts_from_are_trained_first() -> None:
    """Of the same seed; nobody asked for that defense itself."""
    config = RunConfig(("later",), attacks="fgsm", n=6, epsilons=("0.1",), examine=False, workers=0)

    (result,) = run_seeds(config, [2]).results.values()

    assert list(result.summary["defenses"]) == ["later"]
    record = train(
        registry.defenses.create("later"), open_dataset("digits"), TrainConfig(seed=2)
    ).record
    first = train(
        registry.defenses.create("quick"), open_dataset("digits"), TrainConfig(seed=2)
    ).record
    assert record.recipe["start_weights"] == first.weights_digest


@pytest.mark.usefixtures("plugins")
def test_who_loses_the_weights_of_winnow_by_training_others_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One's own weights go before those that come with Winnow, from the first seed on; once."""
    folders = [tmp_path / "committed", checkpoints.USER_FOLDER]
    monkeypatch.setattr(checkpoints, "checkpoint_folders", lambda: folders)
    quick, digits = registry.defenses.create("quick"), open_dataset("digits")
    shipped = train(quick, digits, TrainConfig(seed=0, epochs=1), out=folders[0])
    config = RunConfig(("quick",), attacks="fgsm", n=6, epsilons=("0.1",), examine=False, workers=0)

    with pytest.warns(InputNotice, match=r"quick: from now on, runs without --seeds take .*seed4"):
        run_seeds(config, [4])
    with warnings.catch_warnings(action="error"):
        run_seeds(config, [4, 5])

    digest = digits.digest("train")
    found = checkpoints.find_checkpoint("quick", shipped.record.network, digest)
    assert found is not None
    assert found.stem.endswith("-seed4")


@pytest.mark.usefixtures("plugins")
def test_each_seed_is_trained_and_evaluated() -> None:
    """A run of its own with weights of its own for each; again, and nothing is trained anew."""
    short = train(
        registry.defenses.create("quick"), open_dataset("digits"), TrainConfig(seed=3, epochs=1)
    )
    config = RunConfig(
        ("quick",), attacks="fgsm", n=10, epsilons=("0.1",), examine=False, workers=0
    )

    seeded = run_seeds(config, [0, 3])
    made = {path.name: path.stat().st_mtime_ns for path in Path().rglob("quick*.safetensors")}
    again = run_seeds(config, [0, 3])

    assert len(made) == 2
    assert made == {p.name: p.stat().st_mtime_ns for p in Path().rglob("quick*.safetensors")}
    weights = [r.summary["defenses"]["quick"]["weights_digest"] for r in seeded.results.values()]
    assert len(set(weights)) == 2
    assert short.record.weights_digest in weights  # not trained again for its other settings
    assert again.to_markdown() == seeded.to_markdown()
    assert "training seeds 0, 3" in seeded.to_markdown()
    with pytest.raises(UsageError, match="give one of them"):
        run_seeds(RunConfig(("quick",), checkpoints={"quick": Path("x.safetensors")}), [0])
