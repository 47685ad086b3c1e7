"""The suite of the paper, training seeds, and the twin beside its defense, on MNIST."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import registry
from bench.threat import Norm
from tests.real.commands import record_of, run, train, winnow

pytestmark = [pytest.mark.whole, pytest.mark.usefixtures("workplace")]

#: A network on which thousands of queries take seconds.
SMALL = "[network=mnist-dnn-50]"


def test_the_paper_s_suite(mnist: str) -> None:
    """At the paper's epsilon without naming one; each attack has its row, or its reason."""
    name = f"kwta{SMALL}"
    train(name, mnist, "--epochs", 100)  # so that there is something to attack
    for source in ("relu", "relu-at"):
        train(f"{source}{SMALL}", mnist)

    folder, record, summary = run(name, mnist, "--attacks", "paper", "--n", 4, "--no-examine")

    members = [attack.name for attack in registry.create_attacks("paper", Norm.LINF)]
    figures = summary["defenses"][name]
    assert (record.status, summary["epsilons"]) == ("complete", ["0.3"])
    assert record.suites["paper"] == members
    assert set(figures["attacks"]) == set(members)
    assert figures["clean_accuracy"] > 0
    for attack, cells in figures["attacks"].items():
        cell = cells["0.3"]
        assert cell["status"] == "ok" or cell["reason"], attack
        if cell["status"] == "ok":
            assert figures["worst_case"]["0.3"]["robust_accuracy"] <= cell["robust_accuracy"]
    assert winnow("verify", folder).startswith("verified:")


def test_training_seeds(mnist: str) -> None:
    """Both commands take them; the second finds the weights of the first and trains none."""
    name = f"kwta{SMALL}"

    output = winnow(
        "train", "--defense", name, "--dataset", mnist, "--device", "cpu", "--seeds", "0,1"
    )  # fmt: skip
    records = [record_of(name, seed) for seed in (0, 1)]
    together = winnow(
        "run", "--defense", name, "--dataset", mnist, "--device", "cpu", "--workers", 0,
        "--seeds", "0,1", "--attacks", "fgsm", "--n", 10, "--eps", "0.3", "--no-examine",
    )  # fmt: skip

    mean = sum(record.clean_accuracy for record in records) / 2
    assert f"{name}: clean accuracy {mean:.4f} over 2 seeds" in output
    assert len({record.weights_digest for record in records}) == 2
    assert [record_of(name, seed) for seed in (0, 1)] == records
    assert len(list(Path("results/runs").glob("*/summary.json"))) == 2
    assert "mnist, Linf ε = 0.3, training seeds 0, 1" in together
    assert all(record.weights_digest[:8] in together for record in records)


def test_a_defense_beside_its_twin(mnist: str) -> None:
    """The twin is attacked as well, as a control, and the examination compares the two."""
    for name in ("relu-trades", "kwta-trades"):
        train(f"{name}{SMALL}", mnist)

    _, record, summary = run(
        f"kwta-trades{SMALL}", mnist, "--attacks", "fgsm", "--n", 4, "--eps", "0.3", "--no-escalate"
    )  # fmt: skip

    controls = {name: defense.control for name, defense in record.defenses.items()}
    defense = summary["defenses"][f"kwta-trades{SMALL}"]
    assert controls == {f"kwta-trades{SMALL}": False, f"relu-trades{SMALL}": True}
    assert defense["twin"] == f"relu-trades{SMALL}"
    assert "twin-comparison" in {evidence["id"] for evidence in defense["evidence"]}
