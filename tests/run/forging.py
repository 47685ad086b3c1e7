"""What somebody may do to a run's folder, with every file that follows written again."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

import tests.plugins  # noqa: F401 - registers the attacks
from bench.errors import WinnowError
from bench.record.adversarial import Found, Smallest
from bench.record.damage import DAMAGE
from bench.record.files import canonical_json
from bench.record.outcomes import Outcomes
from bench.record.store import RunStore, open_run
from bench.run import summarise
from bench.run.evaluation import evaluate
from tests.toy_models import Sum, linear_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import pandas as pd

ATTACKS = "test-minimum,test-remaining,fgsm"
#: Where each model of a run of `evaluate` comes from, for `--model`.
SOURCE = "from tests.run.forging import Silent, Zeros\nfrom tests.toy_models import Sum\n"


class Silent(Sum):
    """`Sum` without gradients, which an examination calls unreliable."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same logits."""
        return super().forward(x.detach())


class Zeros(nn.Module):
    """Digits to ten logits, of which none is higher than another."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of shape (N, 10)."""
        logits: torch.Tensor = x.flatten(1) @ self.weight
        return logits


def small_run(
    model: nn.Module,
    out: Path,
    *,
    examine: bool = False,
    attacks: str = ATTACKS,
    epsilons: Sequence[str] = ("0.005", "0.01"),
) -> Path:
    """The folder of a run of eight examples, with rows, a minimum and what others left."""
    examples = linear_examples(8)
    result = evaluate(
        model, examples.inputs, examples.labels, epsilons=epsilons, attacks=attacks,
        shard_size=5, out=out, examine=examine,
    )  # fmt: skip
    assert result.folder is not None
    return result.folder


class Forger:
    """Changes a run's folder, as somebody who has Winnow's code."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = RunStore(folder)

    # --- run.json ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def record(self) -> Iterator[dict[str, Any]]:
        """`run.json`, to be changed."""
        path = self.folder / "run.json"
        content = json.loads(path.read_bytes())
        yield content
        path.write_bytes(canonical_json(content))

    def cells(self, attack: str = "", epsilon: str = "") -> list[dict[str, Any]]:
        """The cells with outcomes of an attack, or of all but the clean predictions."""
        content = json.loads((self.folder / "run.json").read_bytes())
        return [
            cell
            for cell in content["cells"]
            if cell["key"]
            and (cell["attack"] == attack if attack else cell["attack"] != "clean")
            and epsilon in ("", cell["epsilon"])
        ]

    def drop_cells(self, which: Callable[[dict[str, Any]], bool], *, files: bool = True) -> None:
        """Take cells out of `run.json`, and their outcomes away."""
        with self.record() as content:
            gone = [cell for cell in content["cells"] if which(cell)]
            content["cells"] = [cell for cell in content["cells"] if not which(cell)]
        for cell in gone if files else ():
            shutil.rmtree(self.folder / "cells" / cell["key"], ignore_errors=True)

    def change_cells(self, which: Callable[[dict[str, Any]], bool], **values: Any) -> None:
        """Change what `run.json` says of cells."""
        with self.record() as content:
            for cell in filter(which, content["cells"]):
                cell.update(values)

    def change_defense(self, **values: Any) -> None:
        """Change what `run.json` says of the model."""
        with self.record() as content:
            content["defenses"]["model"].update(values)

    def call_examined(self, epsilon: str = "0.01") -> None:
        """Make the digest of an examination that of the outcomes as they are."""
        record = RunStore(self.folder).read_record()
        assert record is not None
        self.change_defense(examined={epsilon: record.outcomes("model")})

    # --- outcomes and examples --------------------------------------------------------------------

    def change_outcomes(
        self, change: Callable[[pd.DataFrame], None], attack: str = "", epsilon: str = ""
    ) -> None:
        """Change the outcomes of cells, shard by shard."""
        for cell in self.cells(attack, epsilon):
            for path in sorted((self.folder / "cells" / cell["key"]).iterdir()):
                outcomes = Outcomes.load(path)
                change(outcomes.frame)
                outcomes.save(path)

    def adversarial(self) -> Path:
        """The folder of adversarial examples."""
        (folder,) = (self.folder / "adversarial").iterdir()
        return folder

    def found(self) -> dict[int, Found]:
        """The stored adversarial examples."""
        return Smallest(self.adversarial()).all()

    def write_found(self, found: dict[int, Found]) -> None:
        """Store these instead."""
        shutil.rmtree(self.adversarial())
        Smallest(self.folder / "adversarial" / self._key()).add(found.values())

    def _key(self) -> str:
        content = json.loads((self.folder / "run.json").read_bytes())
        return str(content["defenses"]["model"]["key"])

    # --- what follows -----------------------------------------------------------------------------

    def rewrite(self) -> None:
        """Write what follows from outcomes and record again, as far as anything does."""
        with contextlib.suppress(WinnowError, *DAMAGE):
            summarise(*open_run(self.folder))
        self.rewrite_manifest()

    def rewrite_manifest(self) -> None:
        """Write the manifest for the files as they are."""
        RunStore(self.folder).write_manifest()


def not_broken(frame: pd.DataFrame) -> None:
    """Every attacked example survives, without a contradiction in its row."""
    hit = frame["attacked"]
    frame.loc[hit, "broken"] = False
    frame.loc[hit, ["wrong_draws", "choice_wrong_draws"]] = 0
    frame.loc[hit, "prediction"] = frame["label"][hit]
    frame.loc[hit, "margin"] = frame["margin"][hit].abs()
    frame.loc[hit, ["distance_linf", "distance_l2", "distance_l1"]] = np.nan
