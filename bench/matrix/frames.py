"""From judgements to outcomes: the table of a shard, one row per example."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import AttackError
from bench.matrix.judge import check_candidates
from bench.record.adversarial import Found, packed
from bench.threat import Norm

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from torch import Tensor

    from bench.api import Problem, Proposal
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


class Part(NamedTuple):
    """What came of a problem for one cell of its task."""

    position: int
    """Of the cell in the task."""
    examples: list[int]
    """Those that were attacked, ascending."""
    inputs: Tensor
    """Theirs."""
    labels: Tensor
    candidates: Tensor | None
    """For them; None where nothing was attacked."""
    extra: dict[str, np.ndarray]
    """Of them, what the attack gave for each."""


def parts_of(task: Task, problem: Problem, proposal: Proposal | None) -> list[Part]:
    """What came of a problem, cell by cell.

    Raises:
        AttackError: what the attack says of each row is not of its rows.
    """
    import numpy as np
    import torch

    count, device = len(problem.inputs), problem.inputs.device
    if proposal is not None:
        check_candidates(proposal.candidates, problem.inputs)
        attacked = _attacked(proposal, count)
    parts, start = [], 0
    for position in range(len(task.cells)):
        stop = count if task.rows is None else start + len(task.rows[position])
        rows, candidates, extra = torch.arange(start, stop, device=device), None, {}
        if proposal is not None:
            rows = rows[attacked[start:stop].to(device)]
            candidates = proposal.candidates[rows]
            chosen = rows.cpu().numpy()
            extra = {
                name: np.asarray(of, dtype=float)[chosen] for name, of in proposal.extra.items()
            }
        assert problem.examples is not None
        numbers = problem.examples[rows].tolist()
        some = problem.inputs[rows], problem.labels[rows]
        parts.append(Part(position, numbers, *some, candidates, extra))
        start = 0 if task.rows is None else stop
    return parts


def _attacked(proposal: Proposal, count: int) -> Tensor:
    """Which rows were attacked, bool (N,)."""
    import torch

    if proposal.attacked is None:
        return torch.ones(count, dtype=torch.bool)
    if proposal.attacked.shape != (count,) or proposal.attacked.dtype != torch.bool:
        raise AttackError(
            f"`attacked` has to be bool, ({count},), one for each row (got "
            f"{proposal.attacked.dtype}, {tuple(proposal.attacked.shape)})"
        )
    return proposal.attacked


def attack_frame(
    task: Task, labels: Tensor, judgement: Judgement | None, part: Part
) -> pd.DataFrame:
    """The outcomes of a shard's examples in one cell: those attacked, and the others as they are.

    Args:
        task: the shard.
        labels: of all examples of the run.
        judgement: of the candidates for those attacked; None where there were none.
        part: what came of the attack.
    """
    import numpy as np

    assert task.clean is not None
    wrong = np.array(task.clean.wrong)
    mine = labels[task.shard.start : task.shard.stop]
    columns = _columns(task, mine, np.array(task.clean.predictions), wrong)
    columns["prediction"] = np.where(wrong, columns["clean_prediction"], -1)
    rows = _places(task, part)
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
            distance = _array(norm.distance(part.inputs, judgement.judged))
            columns[f"distance_{norm.value.lower()}"][rows] = np.where(
                hit | (columns["choice_wrong_draws"][rows] > 0), distance, np.nan
            )
    for name, values in part.extra.items():
        columns[f"extra_{name}"] = np.full(len(mine), np.nan)
        columns[f"extra_{name}"][rows] = values
    return _frame(columns)


def found_in(
    task: Task, judgement: Judgement | None, frame: pd.DataFrame, part: Part
) -> list[Found]:
    """The adversarial examples of one judgement, of the candidates for one cell of the task."""
    if judgement is None:
        return []
    distances = frame[f"distance_{task.norm.value.lower()}"].tolist()
    origin = f"{task.cell.label} @ {task.cells[part.position][1]}"  # what people read
    judged, clean = _array(judgement.judged), _array(part.inputs)
    broken = _array(judgement.broken)
    return [
        Found(
            task.shard.start + place,
            distances[place],
            origin,
            packed(judged[line], clean[line]),
        )
        for line, place in enumerate(_places(task, part))
        if broken[line]
    ]


def _places(task: Task, part: Part) -> list[int]:
    """The places in the shard that were attacked."""
    return [index - task.shard.start for index in part.examples]


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
