"""Forgeries: what is changed in a run's folder, and a part of the fault that has to name it."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np

from tests.run.forging import not_broken
from tests.run.tampering import (
    add,
    all_failed,
    changed_class,
    changed_probes,
    cheaper,
    clean_failed,
    closer,
    declared,
    edit,
    farther,
    inside,
    left_out,
    of_nobody,
    only_judged,
    other_labels,
    out_of_box,
    outcomes,
    put,
    remeasured,
    renamed,
    replaced_elsewhere,
    strong,
    suites_and_another,
    survivors_elsewhere,
    swapped,
    to,
    twice,
    undeclared,
    unfinished,
    unlink_cells,
    with_draws,
    without_shard,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.run.forging import Forger

#: Of a run that was not examined: the forgery, and a part of the fault that names it.
FORGERIES: dict[str, tuple[Callable[[Forger], None], str]] = {
    "outcomes-unbroken": (outcomes(not_broken), "no outcome accounts for it"),
    "outcomes-unbroken-by-the-flag-alone": (outcomes(put("broken", False)), "what its draws say"),
    "cells-dropped": (lambda f: f.drop_cells(strong), "no outcome accounts for it"),
    "cells-dropped-files-left": (lambda f: f.drop_cells(strong, files=False), "named by nothing"),
    "no-cells": (unlink_cells, "no cell of clean predictions"),
    "clean-failed": (clean_failed, "and no clean predictions"),
    "clean-failed-and-all-others": (all_failed, "and no clean predictions"),
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
    "survivors-of-a-cell-nobody-finished": (survivors_elsewhere, "left out, and nothing says why"),
    "replaced-at-another-epsilon": (replaced_elsewhere, "@ 0.5: its epsilon is none of the run's"),
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
    "notes": (inside("dataset", notes=["the whole test split"]), "dataset.notes"),
    "called-inferred": (lambda f: f.change_cells(strong, inferred=True), "everything was attacked"),
    "left-out-of-a-row": (
        outcomes(left_out, "fgsm"), "left out of a row",
    ),
    "passes-of-the-judge-alone": (only_judged, "its totals are"),
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
