"""Forgeries: what is changed in a run's folder, and a part of the fault that has to name it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.record.outcomes import Outcomes
from tests.run.forging import Forger, not_broken

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd


def every(cell: dict[str, Any]) -> bool:
    """Every cell but the clean predictions."""
    return bool(cell["attack"] != "clean")


def strong(cell: dict[str, Any]) -> bool:
    """The cells that break something."""
    return every(cell) and cell["epsilon"] == "0.01"


def probes(cell: dict[str, Any]) -> bool:
    """The cells that measure, and nothing else needs."""
    return bool(cell["scope"] == "evidence" and cell["attack"].startswith("probe"))


def put(column: str, value: Any) -> Callable[[pd.DataFrame], None]:
    """Set a column of the examples that were attacked and broken."""

    def change(frame: pd.DataFrame) -> None:
        frame.loc[frame["attacked"] & frame["broken"], column] = value

    return change


def to(column: str, value: Any) -> Callable[[pd.DataFrame], None]:
    """Set a column everywhere: to a value, or to what a function makes of the frame."""

    def change(frame: pd.DataFrame) -> None:
        frame[column] = value(frame) if callable(value) else value

    return change


def edit(**values: Any) -> Callable[[Forger], None]:
    """Change keys of `run.json`."""

    def forge(forger: Forger) -> None:
        with forger.record() as content:
            content.update(values)

    return forge


def inside(part: str, **values: Any) -> Callable[[Forger], None]:
    """Change keys of an object in `run.json`."""

    def forge(forger: Forger) -> None:
        with forger.record() as content:
            content[part].update(values)

    return forge


def outcomes(
    change: Callable[[pd.DataFrame], None], attack: str = "", epsilon: str = ""
) -> Callable[[Forger], None]:
    """Change outcomes."""
    return lambda forger: forger.change_outcomes(change, attack, epsilon)


def hidden_examples(forger: Forger) -> None:
    """Every outcome unbroken and the proofs gone: nothing but computing again shows it."""
    forger.change_outcomes(not_broken)
    shutil.rmtree(forger.folder / "adversarial")


def many_draws(frame: pd.DataFrame) -> None:
    """A model with one answer was asked a hundred times, and wrong in a bit more than half."""
    frame["draws"] = 100
    frame.loc[frame["broken"], ["wrong_draws", "choice_wrong_draws"]] = 51


def with_draws(forger: Forger) -> None:
    """In all cells, the clean predictions included."""
    forger.change_outcomes(many_draws)
    forger.change_outcomes(many_draws, "clean")


def twice(forger: Forger) -> None:
    """A cell stands in the record twice."""
    with forger.record() as content:
        content["cells"].append(dict(content["cells"][-1]))


def unfinished(forger: Forger) -> None:
    """The strong cells move to what others replaced."""
    with forger.record() as content:
        content["replaced"] += [cell for cell in content["cells"] if strong(cell)]
        content["cells"] = [cell for cell in content["cells"] if not strong(cell)]


def without_shard(forger: Forger) -> None:
    """A cell lacks its last shard."""
    folder = forger.folder / "cells" / forger.cells("fgsm")[0]["key"]
    max(folder.iterdir()).unlink()


def swapped(forger: Forger) -> None:
    """Two cells have one another's outcomes."""
    a, b = (
        forger.folder / "cells" / forger.cells(x, "0.01")[0]["key"]
        for x in ("fgsm", "test-minimum")
    )
    a.rename(b.with_name("x"))
    b.rename(a)
    b.with_name("x").rename(b)


def renamed(forger: Forger) -> None:
    """A cell's folder and key have another name."""
    key = forger.cells("fgsm", "0.01")[0]["key"]
    forger.change_cells(lambda cell: cell["key"] == key, key="0" * 32)
    (forger.folder / "cells" / key).rename(forger.folder / "cells" / ("0" * 32))


def farther(forger: Forger) -> None:
    """The stored examples claim to be farther away than they are."""
    forger.write_found(
        {i: item._replace(distance=item.distance * 2) for i, item in forger.found().items()}
    )


def out_of_box(forger: Forger) -> None:
    """A stored example left the box by more than it could."""
    found = forger.found()
    first = min(found)
    found[first] = found[first]._replace(input=(found[first].input * 3 - 1).astype(np.float32))
    forger.write_found(found)


def of_nobody(forger: Forger) -> None:
    """A stored example of an example that the run does not have."""
    found = forger.found()
    first = found[min(found)]
    forger.write_found(found | {40: first._replace(example=40)})


def closer(frame: pd.DataFrame) -> None:
    """Broken nearer than anything stored shows: defames a defense."""
    put("distance_linf", 0.0)(frame)
    put("distance_l2", 0.0)(frame)
    put("distance_l1", 0.0)(frame)


def unlink_cells(forger: Forger) -> None:
    """Nothing in `run.json`, everything in the folder."""
    with forger.record() as content:
        content["cells"] = []


def other_labels(forger: Forger) -> None:
    """The outcomes speak of other labels."""
    for attack in ("", "clean"):
        forger.change_outcomes(to("label", lambda frame: 1 - frame["label"]), attack)


def add(name: str) -> Callable[[Forger], None]:
    """A file that no run has."""

    def forge(forger: Forger) -> None:
        (forger.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (forger.folder / name).write_text("nothing")

    return forge


def declared(**values: Any) -> Callable[[Forger], None]:
    """What an attack declares."""

    def forge(forger: Forger) -> None:
        with forger.record() as content:
            content["attacks"]["fgsm"].update(values)

    return forge


def clean_wrong(frame: pd.DataFrame) -> None:
    """An example that is right is called wrong."""
    frame.loc[:, "prediction"] = frame["clean_prediction"] = 1 - frame["label"]


def changed_class(forger: Forger) -> None:
    """A clean prediction, in every cell."""
    for attack in ("", "clean"):
        forger.change_outcomes(clean_wrong, attack)


def left_out(frame: pd.DataFrame) -> None:
    """A row leaves out what it broke."""
    struck = frame["attacked"] & frame["broken"]
    not_broken(frame)
    frame.loc[struck, "attacked"] = False
    frame.loc[struck, "prediction"] = -1
    frame.loc[struck, "margin"] = np.nan


def undeclared(forger: Forger) -> None:
    """No attack declares anything."""
    with forger.record() as content:
        content["attacks"] = {}


def changed_probes(**values: Any) -> Callable[[Forger], None]:
    """What measured the gradient is called something else, and the model examined."""

    def forge(forger: Forger) -> None:
        forger.change_cells(probes, **values)
        forger.call_examined()

    return forge


def remeasured(forger: Forger) -> None:
    """Without what measured the gradient, and examined by its digest."""
    forger.drop_cells(probes)
    forger.call_examined()


def suites_and_another(forger: Forger) -> None:
    """A suite that it is not, and an attack that nobody has."""
    with forger.record() as content:
        content["attacks"]["of-nobody"] = content["attacks"]["fgsm"]
        content["suites"] = {"standard": ["fgsm"]}


def cheaper(forger: Forger) -> None:
    """Everything cost a pass."""
    for path in sorted((forger.folder / "cells").glob("*/*.parquet")):
        stored = Outcomes.load(path)
        stored.totals.forwards = stored.totals.backwards = 1
        stored.save(path)


#: Of a run that was not examined: the forgery, and a part of the fault that names it.
FORGERIES: dict[str, tuple[Callable[[Forger], None], str]] = {
    "outcomes-unbroken": (outcomes(not_broken), "no outcome accounts for it"),
    "outcomes-unbroken-by-the-flag-alone": (outcomes(put("broken", False)), "what its draws say"),
    "cells-dropped": (lambda f: f.drop_cells(strong), "no outcome accounts for it"),
    "cells-dropped-files-left": (lambda f: f.drop_cells(strong, files=False), "named by nothing"),
    "no-cells": (unlink_cells, "no cell of clean predictions"),
    "no-defenses": (edit(defenses={}, cells=[]), "names no defense"),
    "defense-called-a-control": (lambda f: f.change_defense(control=True), "no defense that was"),
    "cells-failed": (
        lambda f: f.change_cells(strong, status="failed", cause="raised", reason="x"),
        "all its shards are stored",
    ),
    "cells-skipped": (
        lambda f: f.change_cells(strong, status="skipped", cause="not-here", reason="x"),
        "status skipped with the key",
    ),
    "cells-replaced": (unfinished, "is called replaced, and by nothing"),
    "cells-twice": (twice, "more than once"),
    "scope-remaining": (
        lambda f: f.change_cells(lambda c: c["attack"] == "fgsm", scope="remaining"),
        "of scope remaining",
    ),
    "scope-all": (
        lambda f: f.change_cells(lambda c: c["attack"] == "test-remaining", scope="all"),
        "of scope all",
    ),
    "scope-evidence": (
        lambda f: f.change_cells(strong, scope="evidence"), "is not called examined",
    ),
    "family": (inside("dataset", family="cifar10"), "dataset.family"),
    "called-inferred": (lambda f: f.change_cells(strong, inferred=True), "everything was attacked"),
    "left-out-of-a-row": (
        outcomes(left_out, "fgsm"), "left out of a row",
    ),
    "round-of-an-escalation": (lambda f: f.change_cells(strong, round=1), "of scope remaining"),
    "repeat": (lambda f: f.change_cells(strong, repeat=1), "repeat"),
    "cell-at-another-epsilon": (
        lambda f: f.change_cells(strong, epsilon="0.02"), "none of the run's",
    ),
    "shard-missing": (without_shard, "does not hold the outcomes of all"),
    "outcomes-swapped": (swapped, "of another cell"),
    "key-renamed": (renamed, "key does not follow"),
    "nan-distances": (outcomes(put("distance_linf", np.nan)), "distances that no perturbation has"),
    "negative-distances": (outcomes(put("distance_linf", -1.0)), "distances that no perturbation"),
    "distances-nearer": (outcomes(closer), "but no stored adversarial example shows it"),
    "distances-beyond-epsilon": (outcomes(put("distance_linf", 0.3)), "distances that no pert"),
    "hundred-draws": (with_draws, "always answers the same"),
    "wrong-draws": (outcomes(put("wrong_draws", 0)), "what its draws say"),
    "choice-draws": (outcomes(put("choice_wrong_draws", 0)), "its draws before are others"),
    "too-many-draws": (outcomes(put("wrong_draws", 9)), "wrong_draws is none that it can be"),
    "margins": (outcomes(put("margin", 5.0)), "margin and prediction contradict"),
    "predictions": (outcomes(to("prediction", lambda f: f["label"])), "contradict"),
    "labels": (other_labels, "label is none that it can be"),
    "clean-predictions": (changed_class, "unperturbed, is class"),
    "clean-errors-hidden": (
        outcomes(to("clean_prediction", 0), "fgsm"), "another clean prediction",
    ),
    "attacked-without-outcome": (
        outcomes(to("attacked", False), "fgsm"), "broken without an attack",
    ),
    "proof-farther": (farther, "at Linf distance"),
    "proof-out-of-the-box": (out_of_box, "is not in the box"),
    "proof-of-nobody": (of_nobody, "of no example of the run"),
    "proofs-gone": (
        lambda f: shutil.rmtree(f.adversarial()), "no stored adversarial example shows it",
    ),
    "epsilon-wider": (edit(epsilons=["0.005", "0.02"], headline="0.02"), "none of the run's"),
    "epsilons-dropped": (edit(epsilons=["0.005"], headline="0.005"), "none of the run's"),
    "headline-outside": (edit(headline="0.5"), "the headline '0.5' among them"),
    "seed": (edit(seed=7), "the id of such a run"),
    "id": (edit(id="0" * 16), "the id of such a run"),
    "norm": (edit(norm="L2"), "does not follow"),
    "shard-size": (edit(shard_size=50), "does not follow"),
    "shard-size-of-fewer": (edit(shard_size=2), "shards are not those"),
    "n": (inside("dataset", n=7), "dataset.n is 7"),
    "shape": (inside("dataset", shape=[1, 2, 8]), "dataset.shape"),
    "data-digest": (inside("dataset", digest="0" * 64), "the data are not those of the run"),
    "class-dropped": (inside("dataset", class_names=["a"]), "labels have to be in"),
    "class-added": (inside("dataset", class_names=["a", "b", "c"]), "the data are not those"),
    "judging-version": (inside("judging", version=3), "judged by other rules"),
    "judging-precision": (inside("judging", precision="tf32"), "judged by other rules"),
    "judging-device": (inside("judging", device="abacus"), "judged by other rules"),
    "suites": (edit(suites={"standard": ["fgsm"]}), "suites is not what"),
    "suites-beside-an-unknown-attack": (suites_and_another, "suites is not what"),
    "figures": (edit(figures={"fgsm": "autoattack"}), "figures is not what"),
    "published": (
        lambda f: f.change_defense(published={"epsilon": "0.01", "robust_accuracy": 0.99}),
        "its published is",
    ),
    "network": (lambda f: f.change_defense(network="resnet-999"), "its network is"),
    "twin": (lambda f: f.change_defense(twin="relu"), "its twin is"),
    "weights": (lambda f: f.change_defense(weights_digest="0" * 64), "other weights"),
    "declared-approach": (declared(approach="scores"), "not what the attack declares"),
    "declared-deterministic": (declared(deterministic=False), "not what the attack declares"),
    "undeclared": (undeclared, "and not what it declares"),
    "number-as-text": (edit(seed="0"), "seed is not as Winnow writes it"),
    "file-added": (add("notes.txt"), "is no file of this run"),
    "file-added-to-a-folder": (add("cells/stray/0000.parquet"), "is named by nothing"),
    "defense-added": (add("adversarial/stray/0000.safetensors"), "is named by nothing"),
    "error-of-nobody": (add("errors/stray-0000.txt"), "is no file of this run"),
    "half-written": (add(".run.json.1.partial"), "is no file of this run"),
}  # fmt: skip


EXAMINED: dict[str, tuple[Callable[[Forger], None], str]] = {
    "measurements-dropped": (remeasured, "what its examination asks for is not there"),
    "measurements-incomplete": (
        changed_probes(status="incomplete"),
        "what its examination asks for is not there",
    ),
    "measurement-extended": (
        changed_probes(scope="all"), "of scope",
    ),
    "sweep": (edit(sweep="each"), "sweep is each, and something was inferred"),
    "not-examined": (lambda f: f.change_defense(examined={}), "not called examined"),
    "examined-elsewhere": (
        lambda f: f.call_examined("0.005"), "not called examined",
    ),
    "examined-nowhere": (lambda f: f.call_examined("0.7"), "no epsilon of the run"),
}  # fmt: skip


#: What only computing again could show, and the words that say so.
RECORDED: dict[str, tuple[Callable[[Forger], None], str]] = {
    "headline": (edit(headline="0.005"), "headline"),
    "class-names": (inside("dataset", class_names=["ship", "plane"]), "names of its classes"),
    "command": (inside("provenance", command="by hand"), "command"),
    "date": (inside("provenance", date="2031-01-01"), "date"),
    "budget": (edit(budget=5), "budget"),
    "checkpoint": (lambda f: f.change_defense(checkpoint="elsewhere"), "checkpoints"),
    "passes": (cheaper, "passes and seconds"),
    "margins-of-survivors": (
        outcomes(to("margin", lambda frame: frame["margin"] * 2)), "margins",
    ),
}  # fmt: skip
