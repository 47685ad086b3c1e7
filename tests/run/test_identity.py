"""A run's folder answers for a model only if that answers as the one whose run it is."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import PluginWarning
from bench.models.behaviour import Behaviour
from bench.models.counted import CountedModel
from bench.run import run
from bench.run.config import RunConfig
from bench.run.prepare import prepare
from bench.run.verification import verify_run
from tests.run.forging import Forger
from tests.toy_models import Sum, attack_only, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.run import Result

EXAMPLES = linear_examples()
EPSILON = "0.02"


class Tuned(Sum):
    """`Sum` about another mean, of which its weights say nothing."""

    def __init__(self, mean: float = 0.5, *, upside_down: bool = False, near: bool = False) -> None:
        super().__init__()
        self.mean, self.upside_down, self.near = torch.tensor(mean), upside_down, near

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (N, 2)."""
        logits = super().forward(x - self.mean + 0.5)
        if self.upside_down:
            logits = logits.flip(1)
        if self.near:  # only what is no clean input is answered otherwise
            known = (x[:, None] == EXAMPLES.inputs).flatten(2).all(dim=2).any(dim=1)
            logits = torch.where(known[:, None], logits, -logits)
        return logits


class Edited(Tuned):
    """What a notebook's cell leaves when its `forward` was edited."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits of shape (N, 2)."""
        return super().forward(x) * 2


Edited.__name__ = Edited.__qualname__ = "Tuned"


class Noisy(Sum):
    """Adds noise, drawn from torch's generator or from its own."""

    def __init__(self, deviation: float, *, own: bool) -> None:
        super().__init__()
        self.deviation = deviation
        self.generator = torch.Generator() if own else None
        if self.generator is not None:
            self.generator.seed()

    def forward(self, x: Tensor) -> Tensor:
        """The logits of `Sum` at a noisy input."""
        noise = torch.randn(x.shape, generator=self.generator)
        return super().forward(x + self.deviation * noise)


def evaluate(model: nn.Module, folder: Path | None, **options: Any) -> Result:
    """An evaluation that may be stored."""
    return attack_only(
        model, EXAMPLES.inputs, EXAMPLES.labels, epsilons=[EPSILON], attacks="test-best",
        shard_size=8, out=folder, **options,
    )  # fmt: skip


def figures(result: Result) -> tuple[float, float]:
    """Clean and robust accuracy."""
    (entry,) = result.summary["defenses"].values()
    return entry["clean_accuracy"], entry["worst_case"][EPSILON]["robust_accuracy"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tuned(0.52),
        lambda: Tuned(upside_down=True),
        lambda: Tuned(near=True),
        Edited,
        lambda: Noisy(0.05, own=False),
    ],
    ids=["attribute", "flag", "off the data", "edited forward", "other class"],
)
def test_a_model_of_the_same_weights_gets_its_own_figures(
    make: Callable[[], nn.Module], tmp_path: Path
) -> None:
    """Those that it has without a folder; each finds its run again and computes nothing anew."""
    first, alone = evaluate(Tuned(), tmp_path), evaluate(make(), None)
    with warnings.catch_warnings(action="ignore"):
        second = evaluate(make(), tmp_path)
    assert first.folder != second.folder
    assert second.outcomes_full.equals(alone.outcomes_full)
    stored = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert evaluate(Tuned(), tmp_path).folder == first.folder
    with warnings.catch_warnings(action="ignore"):
        assert evaluate(make(), tmp_path).folder == second.folder
    assert stored == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}


def test_the_user_is_told_that_it_is_another_run(tmp_path: Path) -> None:
    """By how much the answers differ, from which folder, and where this one is."""
    evaluate(Tuned(), tmp_path)
    says = r"other logits for 20 of 20 inputs, by up to 0\.\d+\).*same weights: another run, in"
    with pytest.warns(PluginWarning, match=says):
        evaluate(Tuned(0.52), tmp_path)


def test_the_size_of_batches_and_a_copy_are_no_other_model(tmp_path: Path) -> None:
    """What changes in the last digits alone, or not at all, continues its run without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", PluginWarning)
        folders = {evaluate(Tuned(), tmp_path, batch_size=size).folder for size in (None, 3, 1)}
    assert len(folders) == 1


def test_a_run_that_kept_no_logits_is_told_by_its_margins(tmp_path: Path) -> None:
    """Runs of older versions: the same model continues, another one does not."""
    first = evaluate(Tuned(), tmp_path)
    assert first.folder is not None
    for path in first.folder.glob("behaviour/*"):
        path.unlink()
    with pytest.warns(PluginWarning, match="other margins for 20 of 20 inputs"):
        assert evaluate(Tuned(0.52), tmp_path).folder != first.folder
    assert evaluate(Tuned(), tmp_path).folder == first.folder


def test_verification_compares_what_the_model_answers(tmp_path: Path) -> None:
    """A factory of the same weights and another mean is a fault; older runs claim nothing."""
    result = evaluate(Tuned(), tmp_path / "runs")
    assert result.folder is not None
    file = tmp_path / "mine.py"

    def faults(mean: float) -> list[str]:
        file.write_text(
            "from tests.run.test_identity import Tuned\n\n\ndef make():\n"
            f"    return Tuned({mean})\n"
        )
        assert result.folder is not None
        return verify_run(result.folder, model=f"{file}:make", device="cpu").faults

    assert faults(0.5) == []
    assert any("other answers than the model of the run" in fault for fault in faults(0.50001))


def test_the_second_model_of_the_same_weights_verifies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id is of its variant, which the run says; of older runs any small one is taken."""
    evaluate(Tuned(), tmp_path / "runs")
    with warnings.catch_warnings(action="ignore"):
        folder = evaluate(Tuned(0.52), tmp_path / "runs").folder
    assert folder is not None
    file = tmp_path / "mine.py"
    file.write_text("from tests.run.test_identity import Tuned\nmake = lambda: Tuned(0.52)\n")
    forger = Forger(folder)

    def faults(**changes: int) -> list[str]:
        with forger.record() as content:
            content.pop("variant")
            content.update(changes)
            made_by = content["provenance"]["commit"]
        forger.rewrite_manifest()
        with monkeypatch.context() as patch:
            patch.setattr("bench.run.verification.claims._commit_here", lambda: made_by)
            findings = verify_run(folder, model=f"{file}:make", device="cpu")
        assert "the run's id and the keys of its cells" in findings.proven
        return findings.faults

    assert json.loads((folder / "run.json").read_bytes())["variant"] == 1
    assert faults(variant=1) == []
    assert [fault[:30] for fault in faults(variant=0)] == ["run.json: the id of such a run"]
    assert faults() == []


def test_an_edited_helper_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file's model whose own text did not change; edited back, the first run is continued.

    All within a second: Python would take what is compiled for the same, and nothing is.
    """
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    (tmp_path / "mine.py").write_text("import helper\n\n\ndef make():\n    return helper.Mine()\n")
    helper = (
        "from torch import nn\n\n\nclass Mine(nn.Module):\n"
        "    def forward(self, x):\n        return (x - {mean}).flatten(1)[:, 20:30]\n"
    )
    folders = []
    for mean in (0.0, 0.3, 0.0):
        (tmp_path / "helper.py").write_text(helper.format(mean=mean))
        os.utime(tmp_path / "helper.py", (1e9, 1e9))
        config = RunConfig(
            defenses=(f"file:{tmp_path}/mine.py:make",), attacks="test-best", n=10,
            epsilons=("0.05",), examine=False, workers=1, out=tmp_path / "runs",
        )  # fmt: skip
        with warnings.catch_warnings(action="ignore"):
            folders.append(run(prepare(config)).folder)
        sys.modules.pop("helper", None)
    assert folders[0] == folders[2] != folders[1]


def behaviour(model: nn.Module, seed: int = 0) -> Behaviour:
    """Of a model, in two blocks."""
    classes = model(EXAMPLES.inputs[:1]).shape[1]
    counted = CountedModel(model, classes, None, "cpu")
    parts = [Behaviour.of(counted, EXAMPLES.inputs[i : i + 10], seed + i) for i in (0, 10)]
    return Behaviour.joined(parts)


def test_behaviour_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    """Logits, device and randomness."""
    path = tmp_path / "behaviour.safetensors"
    for model in (Sum(), Noisy(0.1, own=False), Noisy(0.1, own=True)):
        written = behaviour(model)
        written.save(path)
        read = Behaviour.load(path)
        assert np.array_equal(read.logits, written.logits)
        assert (read.device, read.resolution, read.drawn) == ("cpu", 2**-23, written.drawn)


@pytest.mark.parametrize(("own", "seed"), [(False, 0), (False, 5), (True, 0)])
def test_randomised_models_are_told_apart_by_their_draws(own: bool, seed: int) -> None:
    """The same noise is the same model by any generator and seed; twice as much is another."""
    model = behaviour(Noisy(0.1, own=own))
    assert model.randomised
    assert model.difference(behaviour(Noisy(0.1, own=own), seed)) == ""
    assert model.difference(behaviour(Noisy(0.2, own=own), seed))
    assert "randomised" in model.difference(behaviour(Sum()))


def test_more_noise_is_seen_by_the_draws() -> None:
    """Twice as much in all of 20 pairs, half as much again in most (320 of 400 were measured)."""

    def found(deviation: float) -> int:
        pairs = ((behaviour(Noisy(each, own=True)) for each in (0.1, deviation)) for _ in range(20))
        return sum(bool(one.difference(other)) for one, other in pairs)

    assert found(0.2) == 20
    assert found(0.15) > 7


def test_equal_randomised_models_are_hardly_ever_told_apart() -> None:
    """Of 40 pairs with other noise none; the rule allows one in 2,000."""
    first = behaviour(Noisy(0.1, own=True))
    assert not any(first.difference(behaviour(Noisy(0.1, own=True))) for _ in range(40))


@pytest.mark.parametrize(
    "form",
    [
        lambda z: torch.cat([z, torch.full_like(z, -1e9)], dim=1),
        lambda z: torch.cat([z, torch.full_like(z, -torch.inf).repeat(1, 8)], dim=1),
        lambda z: z + 1e4,
    ],
    ids=["masked by a number", "masked by infinity", "shifted"],
)
def test_no_constant_hides_what_else_is_answered(form: Callable[[Tensor], Tensor]) -> None:
    """As classes that the data do not have are masked: the others are compared on their scale."""

    class Formed(Tuned):
        def forward(self, x: Tensor) -> Tensor:
            return form(super().forward(x))

    one, same, other = (behaviour(Formed(mean)) for mean in (0.5, 0.5, 0.52))
    assert one.difference(same) == ""
    assert one.difference(other).startswith("other logits for 20 of 20")


class Backwards(Tuned):
    """`Tuned` without a gradient, or with a straight-through estimator."""

    def __init__(self, straight: float) -> None:
        super().__init__()
        self.straight = straight

    def forward(self, x: Tensor) -> Tensor:
        """The same logits in any case."""
        logits = super().forward(x)
        return logits.detach() + self.straight * (logits - logits.detach())


def test_a_gradient_that_was_put_in_is_another_model(tmp_path: Path) -> None:
    """None, one, the other way round; and what was kept without gradients says nothing of them."""
    models = [Backwards(straight) for straight in (0.0, 1.0, -1.0)]
    found = [behaviour(model) for model in models]
    for place, one in enumerate(found):
        for other, theirs in enumerate(found):
            told = one.difference(theirs)
            assert told == ("" if place == other else "other gradients for 8 of 8 inputs")
        assert one.difference(dataclasses.replace(found[0], slopes=None)) == ""

    first = evaluate(models[0], tmp_path)
    with warnings.catch_warnings(action="ignore"):
        assert evaluate(models[1], tmp_path).folder != first.folder
    assert evaluate(Backwards(0.0), tmp_path).folder == first.folder


def test_a_gradient_that_is_another_each_time_tells_nothing() -> None:
    """By a generator of its own: the model is known by its logits alone."""

    class Restless(Backwards):
        def forward(self, x: Tensor) -> Tensor:
            self.straight = float(np.random.default_rng().normal())
            return super().forward(x)

    one, other = behaviour(Restless(1.0)), behaviour(Restless(1.0))
    assert one.slopes is None
    assert one.difference(other) == one.difference(behaviour(Backwards(1.0))) == ""


def test_rounding_is_allowed_for_by_device_and_precision() -> None:
    """1e-4 of a row's largest logit on one kind of device, 1e-3 and some jumps on another."""
    one = behaviour(Sum())

    def moved(share: float, device: str, rows: int = 40, resolution: float = 1e-7) -> Behaviour:
        logits = one.logits.copy()
        logits.reshape(40, 2)[:rows] *= 1 + share
        return Behaviour(logits, device, resolution)

    assert one.difference(moved(5e-5, "cpu")) == ""
    assert one.difference(moved(5e-4, "cpu"))
    assert one.difference(moved(5e-4, "cuda")) == ""
    assert one.difference(moved(5e-3, "cuda"))
    assert one.difference(moved(0.5, "cuda", rows=2)) == ""
    assert one.difference(moved(0.5, "cpu", rows=2))
    assert one.difference(moved(5e-3, "cpu", resolution=2**-10)) == ""
