"""Adversarial examples from files: judged like any attack's, and never believed."""

from __future__ import annotations

import math
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy
import torch

from bench.data import headline
from bench.errors import DataError, UsageError
from bench.run import load_results, run
from bench.run.candidates import CandidateFile
from bench.run.config import RunConfig
from bench.run.evaluation import contender_of
from bench.run.imports import attack_for, with_candidates
from bench.run.prepare import Prepared, dataset_record, setting_of
from bench.run.verification import verify_run
from bench.threat import Epsilon, Norm
from tests.toy_models import Sum, linear_examples, linf_thresholds

if TYPE_CHECKING:
    from pathlib import Path

    from bench.run import Result

N = 10
EPSILONS = ["0.005", "0.02", "0.05"]
EXAMPLES = linear_examples(N)
THRESHOLDS = linf_thresholds(EXAMPLES)


def shifted(by: torch.Tensor) -> np.ndarray:
    """Every pixel of each example moved by so much towards the other class, float32."""
    sign = 1.0 - 2.0 * EXAMPLES.labels.double()
    moved = EXAMPLES.inputs.double() + (sign * by).reshape(-1, 1, 1, 1)
    return moved.float().numpy()


def judged(
    path: Path, out: Path, *, norm: Norm = Norm.LINF, epsilons: list[str] = EPSILONS
) -> Result:
    """The run of `Sum` that a file of candidates makes by itself."""
    config = RunConfig(("model",), norm=norm, out=out, workers=0, shard_size=4, examine=False)
    radii = Epsilon.parse_many(epsilons)
    prepared = Prepared(
        config=config,
        examples=EXAMPLES,
        dataset=dataset_record(EXAMPLES, "", None),
        setting=setting_of(config, EXAMPLES, radii, "cpu"),
        headline=headline(None, norm, radii),
        contenders=[contender_of("model", Sum())],
        attacks=[],
        device="cpu",
    )
    return run(
        with_candidates(prepared, attack_for("mine"), CandidateFile.open(path).read(EXAMPLES))
    )


def curve(result: Result, part: str = "worst_case") -> list[float | None]:
    """Robust accuracies, ascending by epsilon, of the worst case or the file's own row."""
    found = result.summary["defenses"]["model"]
    cells = found["worst_case"] if part == "worst_case" else found["attacks"]["external:mine"]
    return [cells[epsilon]["robust_accuracy"] for epsilon in result.summary["epsilons"]]


def exact(among: list[int] | None = None) -> list[float]:
    """The fraction of examples that no uniform shift within epsilon changes, by closed form."""
    chosen = torch.zeros(N, dtype=torch.bool)
    chosen[list(range(N)) if among is None else among] = True
    return [1 - float(((float(e) > THRESHOLDS) & chosen).sum()) / N for e in EPSILONS]


def test_what_lies_outside_is_projected_once_and_judged_again(tmp_path: Path) -> None:
    """A shift beyond every epsilon, projected, is the best attack: the closed form at each."""
    np.savez(tmp_path / "far.npz", adversarial=shifted(torch.full((N,), 0.2)))

    result = judged(tmp_path / "far.npz", tmp_path / "runs")

    assert curve(result) == curve(result, "row") == pytest.approx(exact())
    assert 0 < exact()[-1] < exact()[0] <= 1
    frame = result.outcomes_full
    assert frame.loc[frame["attacked"], "projected"].all()


def test_a_claim_that_is_none_breaks_nothing(tmp_path: Path) -> None:
    """The unperturbed examples, called adversarial: every one of them survives."""
    np.savez(tmp_path / "lies.npz", adversarial=EXAMPLES.inputs.numpy())

    result = judged(tmp_path / "lies.npz", tmp_path / "runs")

    assert curve(result) == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("norm", [Norm.L2, Norm.L1])
def test_its_norm_is_measured_in_closed_form(tmp_path: Path, norm: Norm) -> None:
    """A shift by s of D pixels is s √D in L2 and s D in L1, and breaks from there on upwards."""
    pixels = EXAMPLES.inputs[0].numel()
    factor = math.sqrt(pixels) if norm is Norm.L2 else pixels
    np.savez(tmp_path / "near.npz", adversarial=shifted(THRESHOLDS * 1.05))
    large = float(2 * factor * THRESHOLDS.max())

    result = judged(tmp_path / "near.npz", tmp_path / "runs", norm=norm, epsilons=[str(large)])

    critical = result.summary["defenses"]["model"]["critical"]
    expected = (THRESHOLDS * 1.05 * factor).tolist()
    assert critical == pytest.approx(expected, abs=1e-5)
    assert curve(result) == [0.0]


def test_a_file_of_some_examples_is_no_row(tmp_path: Path) -> None:
    """It has no robust accuracy of its own, and the worst case counts what it breaks."""
    chosen = [7, 2, 5]
    adversarial = shifted(torch.full((N,), 0.2))[chosen]
    np.savez(tmp_path / "some.npz", adversarial=adversarial, index=np.array(chosen))

    result = judged(tmp_path / "some.npz", tmp_path / "runs")

    cell = result.summary["defenses"]["model"]["attacks"]["external:mine"]["0.05"]
    assert curve(result, "row") == [None, None, None]
    assert (cell["scope"], cell["attacked"]) == ("remaining", 3)
    assert curve(result) == pytest.approx(exact(chosen))
    assert exact(chosen) != exact()
    frame = result.outcomes_full
    assert set(frame.loc[frame["attacked"], "index"]) == set(chosen)


def test_npz_and_safetensors_say_the_same(tmp_path: Path) -> None:
    """Same arrays, same outcomes; the order in the file does not matter where there is an index."""
    adversarial = shifted(THRESHOLDS * 1.2)
    np.savez_compressed(tmp_path / "a.npz", adversarial=adversarial)
    order = np.arange(N)[::-1].copy()
    arrays = {"adversarial": adversarial[order].copy(), "index": order}
    safetensors.numpy.save_file(arrays, tmp_path / "b.safetensors")

    one = judged(tmp_path / "a.npz", tmp_path / "one").outcomes_full
    other = judged(tmp_path / "b.safetensors", tmp_path / "other").outcomes_full

    assert one.equals(other)
    assert one["broken"].any()


def test_another_file_is_another_cell(tmp_path: Path) -> None:
    """The key holds the file's digest: the same name with other contents is judged anew."""
    np.savez(tmp_path / "x.npz", adversarial=EXAMPLES.inputs.numpy())
    before = judged(tmp_path / "x.npz", tmp_path / "runs")
    np.savez(tmp_path / "x.npz", adversarial=shifted(torch.full((N,), 0.2)))

    after = judged(tmp_path / "x.npz", tmp_path / "runs")

    assert before.folder == after.folder
    assert curve(before)[-1] == 1.0
    assert curve(after) == pytest.approx(exact())


def test_one_that_is_not_finite_is_refused_and_the_others_count(tmp_path: Path) -> None:
    """NaN and infinity break nothing and are named; the rest is judged."""
    adversarial = shifted(torch.full((N,), 0.2))
    adversarial[0, 0, 0, 0], adversarial[1, 0, 1, 1] = np.nan, np.inf
    np.savez(tmp_path / "nan.npz", adversarial=adversarial)

    result = judged(tmp_path / "nan.npz", tmp_path / "runs")

    assert curve(result) == pytest.approx(exact(list(range(2, N))))
    cell = result.summary["defenses"]["model"]["attacks"]["external:mine"]["0.05"]
    assert cell["flags"] == ["2 candidate(s) not finite"]


def test_the_run_verifies_and_is_read_back(tmp_path: Path) -> None:
    """Adversarial examples, figures and bytes hold, with the file gone; its digest is on record."""
    np.savez(tmp_path / "far.npz", adversarial=shifted(torch.full((N,), 0.2)))
    result = judged(tmp_path / "far.npz", tmp_path / "runs")
    (tmp_path / "far.npz").unlink()
    factory = tmp_path / "my_model.py"
    factory.write_text("from tests.toy_models import Sum\n")
    assert result.folder is not None

    findings = verify_run(result.folder, model=f"{factory}:Sum", device="cpu")

    assert findings.faults == []
    assert findings.examples == sum(d is not None for d in _critical(result))
    assert load_results(result.folder).summary == result.summary
    assert len(result.summary["provenance"]["imports"]["external:mine"]["sha256"]) == 64


def _critical(result: Result) -> list[float | None]:
    return list(result.summary["defenses"]["model"]["critical"])


FINE = shifted(torch.full((N,), 0.1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_adv": FINE}, r"has to hold an array `adversarial`; it holds x_adv \(10"),
        ({"adversarial": FINE[0]}, r"has to be \(N, C, H, W\)"),
        ({"adversarial": FINE[:0]}, "N ≥ 1"),
        ({"adversarial": FINE[:, :, :2]}, r"shape \(1, 2, 4\); those of sums are \(1, 4, 4\)"),
        ({"adversarial": FINE[:9]}, "holds 9 adversarial examples for a run of 10"),
        ({"adversarial": np.repeat(FINE, 2, axis=0)}, "holds 20 adversarial examples"),
        ({"adversarial": (FINE * 255).astype(np.uint8)}, "floating point.*divide 8-bit"),
        ({"adversarial": FINE * 255}, "most candidates lie outside"),
        ({"adversarial": FINE * np.nan}, "not one of the candidates is finite"),
        ({"adversarial": FINE[:2], "index": np.array([1, 10])}, "in 0 … 9.*got 10"),
        ({"adversarial": FINE[:2], "index": np.array([-1, 2])}, "got -1"),
        ({"adversarial": FINE[:2], "index": np.array([1, 1])}, "names an example twice"),
        ({"adversarial": FINE[:2], "index": np.array([1.0, 2.0])}, "whole numbers"),
        ({"adversarial": FINE[:2], "index": np.arange(3)}, r"`index` has to be of shape \(2,\)"),
    ],
)
def test_a_file_that_is_not_what_it_has_to_be(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    """The error names the array, what was got and what is wanted."""
    np.savez(tmp_path / "bad.npz", **arrays)

    with pytest.raises(DataError, match=message):
        CandidateFile.open(tmp_path / "bad.npz").read(EXAMPLES)


class Trap:
    """Leaves a mark where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, ("sprung", "w"))


def test_pickles_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An npz of objects is refused, and nothing in it is executed."""
    monkeypatch.chdir(tmp_path)
    np.savez("trap.npz", adversarial=np.array([Trap()], dtype=object))

    with pytest.raises(DataError, match="pickled objects, which are not read"):
        CandidateFile.open(tmp_path / "trap.npz")

    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0, 3, 60, 400, -40])
@pytest.mark.parametrize("ending", ["npz", "safetensors"])
def test_a_truncated_file_is_refused(tmp_path: Path, ending: str, kept: int) -> None:
    """Cut off anywhere, it is not read half."""
    path = tmp_path / f"cut.{ending}"
    if ending == "npz":
        np.savez(path, adversarial=FINE)
    else:
        safetensors.numpy.save_file({"adversarial": FINE}, path)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(DataError, match="neither a whole npz"):
        CandidateFile.open(path).read(EXAMPLES)


def test_a_damaged_array_is_refused(tmp_path: Path) -> None:
    """A byte that was changed inside an npz fails its checksum."""
    np.savez(tmp_path / "cut.npz", adversarial=FINE)
    data = bytearray((tmp_path / "cut.npz").read_bytes())
    data[300] ^= 255
    (tmp_path / "cut.npz").write_bytes(data)

    with pytest.raises(DataError, match="neither a whole npz"):
        CandidateFile.open(tmp_path / "cut.npz").read(EXAMPLES)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A header that promises terabytes is refused by its shape; nothing of it is read."""
    shape = (10**9, 1, 4, 4)
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive,
        archive.open("adversarial.npy", "w") as member,
    ):
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)

    with pytest.raises(DataError, match="holds 1000000000 adversarial examples"):
        CandidateFile.open(tmp_path / "bomb.npz").read(EXAMPLES)


def test_two_files_in_one_are_read_as_what_they_begin_as(tmp_path: Path) -> None:
    """A zip behind a safetensors file cannot stand in for tensors whose shapes were right."""
    safetensors.numpy.save_file({"adversarial": FINE}, tmp_path / "both")
    np.savez(tmp_path / "other.npz", adversarial=np.zeros((3, 1, 9, 9), np.float32))
    with (tmp_path / "both").open("ab") as file:
        file.write((tmp_path / "other.npz").read_bytes())

    with pytest.raises(DataError, match="neither a whole npz"):
        CandidateFile.open(tmp_path / "both").read(EXAMPLES)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It says so, and so does a folder."""
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(DataError, match="cannot read"):
            CandidateFile.open(path)


@pytest.mark.parametrize("name", ["", "../up", "a b", "A", "x#1", "x[k=1]", "x,y", "-x"])
def test_names_that_are_none(name: str) -> None:
    """What cannot stand in the grammar of names, or could be a path, is refused."""
    with pytest.raises(UsageError, match="cannot name adversarial examples"):
        attack_for(name)


def test_examples_of_another_shape_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    """The run's examples decide, not the file's."""
    np.savez(tmp_path / "fine.npz", adversarial=FINE)
    other = replace(EXAMPLES, inputs=EXAMPLES.inputs.reshape(N, 1, 2, 8))

    with pytest.raises(DataError, match=r"those of sums are \(1, 2, 8\)"):
        CandidateFile.open(tmp_path / "fine.npz").read(other)
