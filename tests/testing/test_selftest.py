"""The self-test: how it judges, and that everything passes it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from bench.cli import app
from bench.errors import UnknownNameError, UsageError
from bench.run import evaluation, inquiry
from bench.run.evaluation import evaluate
from bench.testing import selftest as module
from bench.testing.canaries import CANARIES
from bench.testing.honest import HONEST
from bench.testing.selftest import Diagnosis, Ended, Job, Row, selftest
from bench.trust import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.record.schema import Cell
    from bench.run import Result
    from bench.trust import Case, Menu

TWIN = Diagnosis(0.98, 0.3, 0.2, 0.45, "credible")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Diagnosis]:
    """What evaluations find, by name, in place of evaluating; honest ones are found credible."""
    found = dict.fromkeys(HONEST, TWIN)

    def evaluate_all(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Diagnosis]]:
        return ((job, found[job.name]) for job in jobs)

    monkeypatch.setattr(module, "_evaluate_all", evaluate_all)
    return found


def row(name: str) -> Row:
    """The only row of a self-test of one name."""
    (only,) = selftest(names=[name])
    return only


@pytest.mark.parametrize(
    ("finding", "passed", "reason"),
    [
        (
            Diagnosis(0.98, 0.45, 0.3, 0.6, "credible", ("gradient-fidelity",)),
            True,
            "broken as far as its twin: gradient-fidelity",
        ),
        (
            Diagnosis(0.98, 0.9, 0.8, 0.95, "suspect", ("a", "gradient-fidelity")),
            True,
            "called suspect: gradient-fidelity",
        ),
        (
            Diagnosis(0.98, 0.1, 0.0, 0.2, "unreliable", ("gradient-fidelity",)),
            True,
            "broken as far as its twin and called unreliable: gradient-fidelity",
        ),
        (
            Diagnosis(0.98, 0.46, 0.3, 0.6, "credible", ("gradient-fidelity",)),
            False,
            "its robust accuracy is 0.46 (its twin's: at most 0.45) and its verdict is credible",
        ),
        (
            Diagnosis(0.98, None, None, None, "", ("gradient-fidelity",)),
            False,
            "its robust accuracy is unknown (its twin's: at most 0.45) and its verdict is missing",
        ),
        (
            Diagnosis(0.98, 0.1, 0.0, 0.2, "suspect", ("randomised",)),
            False,
            "of the evidence gradient-fidelity nothing was raised (but: randomised)",
        ),
        (Diagnosis(error="ModelError: no logits"), False, "ModelError: no logits"),
    ],
)
def test_how_a_canary_is_judged(
    answers: dict[str, Diagnosis], finding: Diagnosis, passed: bool, reason: str
) -> None:
    """Broken or doubted, and for the right reason."""
    answers["kwta"] = finding

    judged = row("kwta")

    assert (judged.passed, judged.reason) == (passed, reason)
    assert judged.twin == TWIN


def test_a_canary_without_a_twins_figure_has_to_be_doubted(answers: dict[str, Diagnosis]) -> None:
    """Nothing is broken as far as a twin that nobody could evaluate."""
    answers["cnn"] = Diagnosis(error="KeyError: lost")
    answers["kwta"] = Diagnosis(0.98, 0.0, 0.0, 0.1, "credible", ("gradient-fidelity",))

    assert not row("kwta").passed


@pytest.mark.parametrize(
    ("finding", "passed", "reason"),
    [
        (TWIN, True, "called credible"),
        (Diagnosis(0.9, 0.1, 0.0, 0.2, "broken"), True, "called broken"),
        (
            Diagnosis(0.9, 0.3, 0.2, 0.4, "suspect", ("a", "b")),
            False,
            "false alarm: called suspect (a, b)",
        ),
        (Diagnosis(0.9, 0.3, 0.2, 0.4), False, "there is no verdict"),
        (Diagnosis(error="ValueError: oh"), False, "ValueError: oh"),
    ],
)
def test_how_an_honest_model_is_judged(
    answers: dict[str, Diagnosis], finding: Diagnosis, passed: bool, reason: str
) -> None:
    """By its verdict alone."""
    answers["linear"] = finding

    judged = row("linear")

    assert (judged.passed, judged.reason) == (passed, reason)
    assert judged.twin is None


def test_a_row_for_every_name_epsilon_and_seed(answers: dict[str, Diagnosis]) -> None:
    """A twin that nobody asked for is evaluated, once, and has no row."""
    answers |= dict.fromkeys(["kwta", "lookup"], TWIN)
    seen: list[Ended] = []

    rows = selftest(
        seeds=[0, 1, 0],
        epsilons=["0.1", "0.05"],
        names=["lookup", "kwta", "linear"],
        on_progress=seen.append,
    )

    assert [(r.seed, r.epsilon, r.name) for r in rows] == [
        (seed, epsilon, name)
        for seed in (0, 1)
        for epsilon in ("0.1", "0.05")
        for name in ("kwta", "lookup", "linear")
    ]
    assert (seen[-1].done, seen[-1].total, len(seen)) == (16, 16, 16)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"names": ["kwat"]}, "canary or honest model 'kwat'; did you mean 'kwta'"),
        ({"n": 0}, "n has to be between 1 and 599"),
        ({"n": 600}, "n has to be between 1 and 599"),
        ({"seeds": [-1]}, "seed has to be between 0"),
        ({"epsilons": ["none"]}, "none"),
        ({"epsilons": []}, "no epsilon given"),
    ],
)
def test_mistakes_are_told_before_anything_runs(
    answers: dict[str, Diagnosis], arguments: dict[str, list[str]], match: str
) -> None:
    """As an error of the user's, not as a row that failed."""
    answers.clear()

    with pytest.raises(UsageError, match=match):
        selftest(**arguments)  # type: ignore[arg-type]


def test_models_whose_data_are_missing_are_left_out_unless_they_are_named(
    answers: dict[str, Diagnosis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the folder of MNIST the others are examined; asked for, it is a mistake that says."""
    monkeypatch.delenv("WINNOW_DATA", raising=False)
    answers |= dict.fromkeys(CANARIES, TWIN)

    names = {row.name for row in selftest()}

    assert names == {*CANARIES, *HONEST} - {"mnist-max-pool", "mnist-max-pool-at"}
    with pytest.raises(UsageError, match="'mnist-max-pool' cannot be examined: WINNOW_DATA"):
        selftest(names=["mnist-max-pool"])


def test_an_evaluation_that_raises_is_a_finding() -> None:
    """In a process of its own; the others go on."""
    jobs = [Job("no-such-model", 0, "0.1", 5), Job("nothing-like-it", 0, "0.1", 5)]

    found = dict(module._evaluate_all(jobs, 1))

    assert found.keys() == set(jobs)
    assert found[jobs[0]].error.startswith(UnknownNameError.__name__)
    assert "no-such-model" in found[jobs[0]].error


def test_the_command_prints_a_table_and_says_what_failed(answers: dict[str, Diagnosis]) -> None:
    """Exit code 1 when something did not pass, 0 otherwise."""
    answers["mlp"] = Diagnosis(0.9, 0.3, 0.2, 0.4, "suspect", ("a",))

    good = CliRunner().invoke(app, ["selftest", "--only", "linear,cnn"])
    bad = CliRunner().invoke(app, ["selftest", "--only", "linear,mlp"])

    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert "2 of 2 passed" in good.stdout
    assert "1 of 2 passed" in bad.stdout
    assert "false alarm: called suspect (a)" in bad.stdout
    assert "2/2, ETA 0:00: mlp" in bad.stderr


@pytest.mark.parametrize(
    "arguments", [["--seeds", "one"], ["--seeds", ","], ["--only", ","], ["--eps", ""]]
)
def test_the_command_refuses_what_is_no_list(
    answers: dict[str, Diagnosis], arguments: list[str]
) -> None:
    """A mistake in the command, named after its option."""
    done = CliRunner().invoke(app, ["selftest", *arguments])

    assert isinstance(done.exception, UsageError)
    assert arguments[0] in str(done.exception)


#: Their answers change at random, or their figure is what escalation makes of it: examined whole.
ESCALATED = ("additive-noise", "random-shift", "kwta")
#: Canaries whose verdict takes more than probes, too, and honest models, for which the suite has no
#: time: `tox -e selftest` examines them.
LEFT = (
    "wrong-surrogate", "hidden-member", "ripples", "watched", "kwta-channel", "lwta",
    "sparse-input", "random-resizing", "dropout-left-on", "stochastic-pruning",
    "linear", "cnn-standardised", "cnn-dropout", "max-pool-at", "average-pool", "gelu",
    "layer-norm", "transformer", "mnist-max-pool", "mnist-max-pool-at",
)  # fmt: skip
#: What gives the other canaries away is found by these alone, and found again each time.
PROBING = ("probe-", "uniform-noise")


def examined(names: Sequence[str]) -> list[Row]:
    """Rows of a self-test whose evaluations are done here, without processes beside the tests'."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, "_evaluate_all", lambda jobs, workers: ((j, module._attempt(j)) for j in jobs)
        )
        return selftest(names=names)


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    """A self-test on one seed, by name; `tox -e selftest` is whole, on three."""
    probed = [name for name in CANARIES if name not in (*ESCALATED, *LEFT)]
    models = [name for name in HONEST if name not in LEFT]
    whole = examined([*ESCALATED, *models])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "evaluate", functools.partial(without_escalation, evaluate))
        patch.setattr(inquiry, "requests", probes_alone)
        alone = examined(probed)
    return {row.name: row for row in (*whole, *alone)}


def without_escalation(evaluate: Callable[..., Result], *given: object, **options: Any) -> Result:
    """As an evaluation is called, but that evidence asks for no stronger attacks."""
    return evaluate(*given, **options, escalate=False)


def probes_alone(case: Case, menu: Menu) -> list[Cell]:
    """What an examination asks for, as far as it probes the model and attacks it with noise."""
    return [cell for cell in requests(case, menu) if cell.attack.startswith(PROBING)]


@pytest.mark.whole
@pytest.mark.parametrize("name", [name for name in (*CANARIES, *HONEST) if name not in LEFT])
def test_everything_passes(rows: dict[str, Row], name: str) -> None:
    """Every canary is caught for the right reason; no honest model is called anything else."""
    assert rows[name].passed, rows[name].reason
