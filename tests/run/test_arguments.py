"""What callers of `bench.evaluate` write: other tools' forms are taken, or refused in one line."""

from __future__ import annotations

import decimal
import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import UsageError
from bench.run import arguments
from bench.run.devices import resolve_device
from bench.run.evaluation import evaluate
from bench.threat import Norm
from tests.toy_models import Sum, attack_only, linear_examples, linf_thresholds


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (8 / 255, ["0.03137254901960784"]),
        (1, ["1"]),
        ("8/255", ["8/255"]),
        ("0.01, 8/255", ["0.01", "8/255"]),
        (np.float64(0.02), ["0.02"]),
        (np.float32(8 / 255), ["0.03137255"]),
        (torch.tensor(8 / 255), ["0.03137255"]),
        (torch.tensor(0.02, dtype=torch.float64), ["0.02"]),
        (Fraction(8, 255), ["8/255"]),
        (decimal.Decimal("0.02"), ["0.02"]),
        (np.array(0.02), ["0.02"]),
        ([0.02, "0.01"], ["0.01", "0.02"]),
        (("4/255", Fraction(8, 255)), ["4/255", "8/255"]),
        ({"0.2", "0.1"}, ["0.1", "0.2"]),
        ({"0.5": 1}.keys(), ["0.5"]),
        (np.linspace(0.1, 0.3, 3, dtype=np.float32), ["0.1", "0.2", "0.3"]),
        (torch.tensor([0.1, 0.2]), ["0.1", "0.2"]),
        ([torch.tensor(0.1), np.float16(0.5)], ["0.1", "0.5"]),
        ((step / 10 for step in (2, 1)), ["0.1", "0.2"]),
        (pd.Series([0.1, 0.2], index=[7, 8]), ["0.1", "0.2"]),
        (range(1, 3), ["1", "2"]),
    ],
)
def test_epsilons_are_taken_as_other_tools_take_them(given: Any, written: list[str]) -> None:
    """One or several, of whatever library, with the digits of their own precision."""
    assert [epsilon.text for epsilon in arguments.epsilons(given)] == written


@pytest.mark.parametrize(
    "given",
    [
        None, True, b"8/255", 1j, {"a": 1}, object(), [object()], [None], [[0.1]], [True],
        np.zeros((2, 2)), itertools.count(1), [], "", ",", "abc", "1/0", "8//255", float("nan"),
        [np.inf], -1, 0, [0.0], "-0.1", "1e400", "1e-400", torch.tensor(0.1, device="meta"),
        Norm.L2, [Norm], np.array(["x"]), torch.tensor([1j]), np.datetime64("2020"),
    ],
)  # fmt: skip
def test_what_is_no_epsilon_is_refused(given: Any) -> None:
    """Whatever it is, by one error of ours that is one line."""
    with pytest.raises(UsageError, match="epsilon") as error:
        arguments.epsilons(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["1e999999999", "-1e999999999", "1e-999999999", "1E+99999999999"])
def test_an_exponent_that_would_fill_the_memory_is_not_computed(text: str) -> None:
    """Exact arithmetic on it would take gigabytes; it is refused at once."""
    with pytest.raises(UsageError, match="is not a number"):
        arguments.epsilons(text)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("fgsm,pgd", "fgsm,pgd"),
        (["pgd", "fgsm"], "pgd,fgsm"),
        (("fgsm",), "fgsm"),
        ({"pgd", "fgsm"}, "fgsm,pgd"),
        ((name for name in ("fgsm", "pgd[steps=5,restarts=2]")), "fgsm,pgd[steps=5,restarts=2]"),
        (np.array(["fgsm", "pgd"]), "fgsm,pgd"),
        (pd.Series(["fgsm"]), "fgsm"),
        ({"fgsm": 1, "pgd": 2}, "fgsm,pgd"),
    ],
)
def test_attacks_are_a_text_or_names_in_any_collection(given: Any, names: str) -> None:
    """In the writer's order; a set has none and is sorted, so that a run does not depend on it."""
    assert arguments.attack_names(given) == names


@pytest.mark.parametrize("given", [None, 3, b"fgsm", [3], object(), [object()], [["fgsm"]], Sum])
def test_attacks_that_are_no_names_are_refused(given: Any) -> None:
    """An object of another library is no name, and the error shows what one looks like."""
    with pytest.raises(UsageError, match=r"attacks have to be names, 'fgsm,pgd' or"):
        arguments.attack_names(given)


@pytest.mark.parametrize(
    "given", [torch.device("cpu"), torch.device("cpu", 0), "CPU", " cpu ", "cpu:0"]
)
def test_a_device_is_taken_as_torch_has_it(given: Any) -> None:
    """As an object and in any case."""
    assert resolve_device(arguments.device(given)) == "cpu"


def test_a_device_by_number_is_a_gpu() -> None:
    """As `tensor.to(1)` means it; None leaves the choice."""
    assert arguments.device(1) == arguments.device(np.int64(1)) == "cuda:1"
    assert arguments.device(None) == "auto"


@pytest.mark.parametrize(
    "given", ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "cuda:99999999999", True, object(), "cud a",
              torch.device("meta"), "cuda:١"],
)  # fmt: skip
def test_what_is_no_device_is_refused(given: Any) -> None:
    """With those that there are."""
    with pytest.raises(UsageError, match=r"unknown device .*; allowed: auto, cpu, cuda"):
        resolve_device(arguments.device(given))


@pytest.mark.parametrize(
    ("given", "norm"),
    [
        ("linf", Norm.LINF), ("LINF", Norm.LINF), ("L_inf", Norm.LINF), ("inf", Norm.LINF),
        (np.inf, Norm.LINF), (float("inf"), Norm.LINF), ("L∞", Norm.LINF), ("infinity", Norm.LINF),
        ("l2", Norm.L2), (2, Norm.L2), (2.0, Norm.L2), (np.int64(2), Norm.L2), ("2", Norm.L2),
        (1, Norm.L1), ("l_1", Norm.L1), (Norm.L2, Norm.L2),
    ],
)  # fmt: skip
def test_a_norm_is_read_in_every_common_form(given: Any, norm: Norm) -> None:
    """The papers' names, `ord` of torch, and any case."""
    assert Norm.parse(given) is norm


@pytest.mark.parametrize("given", [0, 3, "L0", "", None, -np.inf, "lp", "l", "2.5", object(), True])
def test_what_is_no_norm_is_refused(given: Any) -> None:
    """With those that there are."""
    with pytest.raises(UsageError, match=r"unknown norm .*; allowed: Linf, L2, L1"):
        Norm.parse(given)


@pytest.mark.parametrize(
    ("given", "number"),
    [
        (3, 3), (np.int64(3), 3), (np.uint8(3), 3), (torch.tensor(3), 3), (3.0, 3), (1e6, 10**6),
        (np.float32(3), 3), (np.array(3), 3), (Fraction(3), 3), (2**80, 2**80),
    ],
)  # fmt: skip
def test_whole_numbers_are_taken_from_any_library(given: Any, number: int) -> None:
    """And from floats that are one: `budget=1e6`."""
    found = arguments.whole("seed", given, least=0)
    assert (found, type(found)) == (number, int)


@pytest.mark.parametrize(
    "given",
    [-1, 1.5, "3", None, True, np.True_, [3], (), np.nan, float("inf"), 1j, object(),
     torch.tensor([1, 2]), torch.tensor(True), np.array([1.5]), b"3"],
)  # fmt: skip
def test_what_is_no_whole_number_is_refused(given: Any) -> None:
    """True is none, nor is text."""
    with pytest.raises(UsageError, match=r"seed has to be a whole number from 0 up \(got "):
        arguments.whole("seed", given, least=0)


@pytest.mark.parametrize(
    "given", [5, 5.0, np.float32(5), np.int64(5), torch.tensor(5), Fraction(5), np.array(5.0)]
)
def test_seconds_are_taken_from_any_library(given: Any) -> None:
    """As a float; None stays what it is."""
    found = arguments.seconds("timeout", given)
    assert (found, type(found)) == (5.0, float)
    assert arguments.seconds("timeout", None) is None


@pytest.mark.parametrize(
    "given", ["5", "", b"5", -1, np.nan, float("inf"), True, [5], 1j, object(), torch.ones(2)]
)
def test_what_are_no_seconds_is_refused(given: Any) -> None:
    """By the name that a program gives it, and where it goes further too."""
    with pytest.raises(UsageError, match=r"^timeout has to be seconds from 0 up, a number; 0 for"):
        arguments.seconds("timeout", given)
    with pytest.raises(UsageError, match=r"^timeout has to be seconds"):
        attack_only(Sum(), None, epsilons="0.02", attacks="fgsm", timeout=given)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1}, {"batch_size": 0}, {"shard_size": 0}, {"n": 0}, {"n": 21}, {"budget": 0},
        {"escalation_budget": -5}, {"out": ""}, {"out": " "}, {"out": "a\0b"}, {"out": "\ud800"},
        {"out": 3}, {"out": b"x"}, {"name": ""}, {"name": 3}, {"name": "a\nb"},
        {"name": "\x1b[31m"},
        {"headline": "0.5"}, {"headline": "x"}, {"headline": ["0.02"]}, {"examine": "yes"},
        {"examine": 1}, {"escalate": "no"}, {"sweep": "all"}, {"sweep": None},
        {"class_names": "ab"}, {"class_names": {1: "a", 2: "b"}}, {"class_names": ["a"]},
        {"class_names": 3}, {"class_names": {"a", "b"}}, {"class_names": frozenset("ab")},
        {"attacks": ","}, {"attacks": []}, {"attacks": "FGSMM"},
        {"progress": "yes"},
        {"norm": "L3"}, {"epsilons": 8}, {"device": "tpu"}, {"out": "/etc/passwd"},
        {"out": "x" * 300}, {"out": "/proc/nowhere"},
    ],
)  # fmt: skip
def test_evaluate_refuses_what_cannot_be_in_one_line(
    changes: dict[str, Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is computed or written."""
    monkeypatch.chdir(tmp_path)
    examples = linear_examples()
    settings = {"attacks": "fgsm", "epsilons": "0.02", **changes}
    with pytest.raises(UsageError) as error:
        attack_only(Sum(), examples.inputs, examples.labels, **settings)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_all_of_it_together_gives_the_closed_form() -> None:
    """A call as users of other tools write it, on a subset, has the figures of its thresholds."""
    examples = linear_examples()
    settings: dict[str, Any] = {
        "norm": np.inf,
        "epsilons": torch.tensor([0.01, 0.02]),
        "attacks": ["fgsm", "test-best"],
        "headline": np.float32(0.02),
        "class_names": {0: "below", 1: "above"},
        "n": np.int64(20),
        "seed": np.int32(1),
        "device": torch.device("cpu"),
        "batch_size": 7.0,
        "examine": "none",
    }
    pair = examples.inputs.numpy().astype(np.float64), examples.labels.tolist()
    result = evaluate(Sum(), pair, **settings)
    thresholds = linf_thresholds(examples)
    worst = result.summary["defenses"]["model"]["worst_case"]
    assert result.summary["headline"] == "0.02"
    for epsilon in ("0.01", "0.02"):
        exact = float((thresholds > float(epsilon)).double().mean())
        assert worst[epsilon]["robust_accuracy"] == exact


def test_a_subset_is_the_command_line_s() -> None:
    """`n` takes the same balanced examples that `--n` would."""
    examples = linear_examples()
    result = attack_only(
        Sum(), examples.inputs, examples.labels, epsilons=0.01, attacks="fgsm", n=6
    )
    labels = result.outcomes.query("attack == 'fgsm'")["label"]
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]


def test_a_headline_as_a_float_is_the_fraction_it_rounds() -> None:
    """8/255 in Python names the epsilon that was written `8/255`."""
    radii = arguments.epsilons(["4/255", "8/255"])
    assert arguments.headline(8 / 255, radii) == "8/255"
