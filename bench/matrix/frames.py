"""From judgements to outcomes: the table of a shard, one row per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.record.outcomes import Found
from bench.threat import Norm

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from bench.api import Proposal
    from bench.matrix.judge import Judgement, Prediction
    from bench.matrix.tasks import Clean, Task


def clean_frame(task: Task, labels: Tensor, prediction: Prediction) -> pd.DataFrame:
    """The outcomes of the unperturbed examples: a clean error is broken at distance 0."""
    import numpy as np

    classes, wrong = prediction.classes.cpu().numpy(), prediction.wrong.cpu().numpy()
    columns = _columns(task, labels, classes, wrong)
    columns |= {"prediction": classes, "margin": _array(prediction.margins)}
    columns |= _draw_columns(prediction)
    return _frame(columns | {"draws": np.full(len(labels), prediction.draws)})


def attack_frame(
    task: Task,
    labels: Tensor,
    inputs: Tensor,
    judgement: Judgement | None,
    proposal: Proposal | None,
) -> pd.DataFrame:
    """The outcomes of a shard's examples in one cell: those attacked, and the others as they are.

    Args:
        task: the shard.
        labels: of the whole shard.
        inputs: those that were attacked, in the order of `task.active`.
        judgement: of the candidates for them; None where there were none.
        proposal: what the attack returned, for its per-example extras.
    """
    import numpy as np

    assert task.clean is not None
    wrong = np.array(task.clean.wrong)
    columns = _columns(task, labels, np.array(task.clean.predictions), wrong)
    columns["prediction"] = np.where(wrong, columns["clean_prediction"], -1)
    rows = _rows(task)
    if judgement is not None:
        hit = _array(judgement.broken)
        columns["attacked"][rows] = True
        columns["prediction"][rows] = _array(judgement.prediction.classes)
        columns["margin"][rows] = _array(judgement.prediction.margins)
        columns["draws"][rows] = judgement.prediction.draws
        counted = _array(judgement.broken) if judgement.prediction.draws == 1 else 1
        for name, count in _draw_columns(judgement.prediction).items():
            columns[name][rows] = count * counted
        columns["broken"][rows] = hit
        columns["projected"][rows] = _array(judgement.projected)
        columns["fault"][rows] = judgement.faults
        for norm in Norm:
            distance = _array(norm.distance(inputs, judgement.judged))
            columns[f"distance_{norm.value.lower()}"][rows] = np.where(
                hit | (columns["choice_wrong_draws"][rows] > 0), distance, np.nan
            )
    for name, values in (proposal.extra if proposal else {}).items():
        columns[f"extra_{name}"] = np.full(len(labels), np.nan)
        columns[f"extra_{name}"][rows] = np.asarray(values, dtype=float)
    return _frame(columns)


def found_in(
    task: Task, judgement: Judgement | None, frame: pd.DataFrame, position: int
) -> list[Found]:
    """The adversarial examples of one judgement, for the cell at this position of the task."""
    if judgement is None:
        return []
    distances = frame[f"distance_{task.norm.value.lower()}"]
    origin = f"{task.cell.label} @ {task.cells[position][1]}"  # what people read
    judged = _array(judgement.judged)
    return [
        Found(task.shard.start + place, float(distances[place]), origin, judged[line])
        for line, place in enumerate(_rows(task))
        if bool(judgement.broken[line])
    ]


def _rows(task: Task) -> list[int]:
    """The places in the shard that are attacked."""
    return [index - task.shard.start for index in task.active]


def _columns(
    task: Task, labels: Tensor, clean_predictions: np.ndarray, wrong: np.ndarray
) -> dict[str, Any]:
    """What is known before any attack."""
    import numpy as np

    _, start, stop = task.shard
    n, clean = stop - start, task.clean
    return {
        "index": np.arange(start, stop),
        "label": _array(labels),
        "clean_prediction": clean_predictions,
        "prediction": np.full(n, -1),
        "attacked": np.zeros(n, dtype=bool),
        "broken": wrong.copy(),
        "projected": np.zeros(n, dtype=bool),
        **{f"distance_{norm.value.lower()}": np.where(wrong, 0.0, np.nan) for norm in Norm},
        "margin": np.full(n, np.nan),
        "fault": np.full(n, "", dtype=object),
        "draws": np.full(n, clean.draws if clean else 1),
        "wrong_draws": _clean_draws(clean, wrong),
        "choice_wrong_draws": _clean_draws(clean, wrong),
    }


def _clean_draws(clean: Clean | None, wrong: np.ndarray) -> np.ndarray:
    """The wrong draws of examples that are not attacked: those of the clean ones that are wrong."""
    import numpy as np

    return np.where(wrong, np.array(clean.wrong_draws), 0) if clean else wrong.astype(np.int64)


def _draw_columns(prediction: Prediction) -> dict[str, np.ndarray]:
    return {
        "wrong_draws": _array(prediction.wrong_draws),
        "choice_wrong_draws": _array(prediction.choice),
    }


def _frame(columns: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(columns | {"fault": [str(fault) for fault in columns["fault"]]})


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array
