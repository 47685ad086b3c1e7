"""What forgers do to a run's folder: to its outcomes, its record, its proofs and its files."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.record.outcomes import Outcomes
from tests.run.forging import not_broken

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd

    from tests.run.forging import Forger


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
    taken_out(frame, struck)


def taken_out(frame: pd.DataFrame, struck: pd.Series | None = None) -> None:
    """What was attacked and not broken was not attacked; or these examples."""
    struck = frame["attacked"] & ~frame["broken"] if struck is None else struck
    frame.loc[struck, ["attacked", "projected"]] = False
    frame.loc[struck, "prediction"] = -1
    frame.loc[struck, "margin"] = np.nan


def survivors_elsewhere(forger: Forger) -> None:
    """A row is empty, since all survived in a cell at a larger epsilon that nobody finished."""
    (cell,) = forger.cells("test-remaining", "0.01")
    (forger.folder / "cells" / ("f" * 32)).mkdir()
    for path in sorted((forger.folder / "cells" / cell["key"]).iterdir()):
        stored = Outcomes.load(path)
        assert stored.place is not None
        stored.place = stored.place._replace(epsilon="0.5")
        stored.save(forger.folder / "cells" / ("f" * 32) / path.name)
    forger.change_outcomes(taken_out, "test-remaining", "0.01")
    forger.change_cells(lambda c: c["key"] == cell["key"], inferred=True)
    with forger.record() as content:
        content["sweep"] = "bracket"
        invented = {"epsilon": "0.5", "key": "f" * 32, "status": "incomplete"}
        content["replaced"].append(cell | invented)


def replaced_elsewhere(forger: Forger) -> None:
    """A cell that was replaced is at an epsilon that the run never had."""
    survivors_elsewhere(forger)
    with forger.record() as content:
        content["replaced"][-1]["status"] = "ok"


def undeclared(forger: Forger) -> None:
    """No attack declares anything."""
    with forger.record() as content:
        content["attacks"] = {}


def clean_failed(forger: Forger) -> None:
    """The clean predictions, against which all outcomes are checked, are said to have failed."""
    (cell,) = forger.cells("clean")
    shutil.rmtree(forger.folder / "cells" / cell["key"])
    forger.change_cells(
        lambda c: c["attack"] == "clean", status="failed", cause="raised", reason="x"
    )
    hidden_examples(forger)


def all_failed(forger: Forger) -> None:
    """Nothing is called finished, and shards are there."""
    clean_failed(forger)
    forger.change_cells(every, status="failed", cause="no-clean", reason="x")


def only_judged(forger: Forger) -> None:
    """The judge asked, and nobody made a pass."""
    for path in sorted((forger.folder / "cells").glob("*/*.parquet")):
        stored = Outcomes.load(path)
        stored.totals.forwards = stored.totals.backwards = 0
        stored.save(path)


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
        totals = stored.totals
        totals.forwards = totals.backwards = totals.judge_forwards = 1
        stored.save(path)
