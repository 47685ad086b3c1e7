"""The model, asked again: about every unperturbed example and every stored adversarial one.

One answer settles a deterministic model. A randomised one is asked as often as the run asked it,
and two counts of draws are compared, which differ by chance alone: an example at most so far as a
normal deviate of `EXAMPLE` allows, all examples together as one of `TOGETHER` does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench.errors import StoreError
from bench.matrix.judge import DRAWS, is_randomised
from bench.record.adversarial import unpacked
from bench.record.results import critical_distances
from bench.record.schema import CLEAN
from bench.run.verification.asking import ALONE, Asked, blocks_of, same_machine
from bench.run.verification.findings import listed
from bench.threat import Norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from bench.api import Examples
    from bench.matrix.judge import Prediction
    from bench.models.contenders import Contender
    from bench.record.adversarial import Found
    from bench.record.results import CellResult
    from bench.record.schema import RunRecord
    from bench.record.store import RunStore
    from bench.run.verification.findings import Findings

#: A prediction that flips at a smaller margin on another device or by other libraries is no fault.
FLIP_MARGIN = 1e-4
#: By how much a distance may differ when it is measured again in float64.
DISTANCE_TOLERANCE = 1e-9
#: Standard deviations by which one example's draws, and those of all examples, may differ: with
#: some hundred examples an honest run passes them but once in ten thousand.
EXAMPLE, TOGETHER = 5.5, 4.5
#: Of how many examples the answers alone and together are compared.
SOME = 8


@dataclass
class Recheck:
    """Judges the stored predictions and adversarial examples of a run again."""

    store: RunStore
    record: RunRecord
    examples: Examples
    device: str
    findings: Findings

    def defense(self, contender: Contender, results: Sequence[CellResult]) -> None:
        """Check one defense: clean predictions, adversarial examples, and that they agree."""
        from bench.models.ambient import plain_torch
        from bench.models.counted import CountedModel
        from bench.run.identity import behaviour_faults

        clean = next((r for r in results if r.cell.attack == CLEAN), None)
        try:
            found = self.store.smallest(self.record.defenses[contender.name].key).all()
        except StoreError as error:
            self.findings.fault(str(error))
            return
        if clean is None:
            if found or self._attacked(contender.name):
                self.findings.fault(
                    f"{contender.name}: outcomes of attacks or adversarial examples, and no clean "
                    "predictions"
                )
            return
        found = self._in_range(contender.name, found)
        with plain_torch(self.device, self.record.seed):
            model = CountedModel(contender.load(), self.examples.classes, None, self.device)
            asked = Asked(model, self.record.shard_size)
            for fault in asked.again(
                lambda model: behaviour_faults(
                    self.store, self.record, contender.name, model, self.examples
                )
            ):
                self.findings.fault(fault)
            draws = self._draws(contender.name, asked, clean)
            some = self.examples.take(range(min(SOME, len(self.examples))))
            alone = draws == 1 and asked.depends_on_batch(self._inputs(some))
            self._clean(contender.name, asked, clean, draws)
            if not alone:
                self._margins(results)
            self._adversarial(contender.name, asked, found, results, draws=draws, alone=alone)
        self._coverage(contender.name, found, results)

    def _attacked(self, name: str) -> bool:
        """Whether any attack on a defense is called finished, or a shard of one is stored."""
        stored = set(self.store.stored_keys())
        return any(
            cell.status == "ok" or cell.key in stored
            for cell in (*self.record.cells, *self.record.replaced)
            if cell.defense == name and cell.attack != CLEAN
        )

    def _in_range(self, name: str, found: Mapping[int, Found]) -> dict[int, Found]:
        """Those of examples of the run, of their shape; a fault for each other."""
        kept = {
            index: item
            for index, item in found.items()
            if index < len(self.examples) and item.input.shape == self.examples.shape
        }
        if strange := sorted(found.keys() - kept.keys()):
            self.findings.fault(
                f"{name}: adversarial examples of no example of the run, or of another shape "
                f"({listed(strange)})"
            )
        return kept

    def _inputs(self, examples: Examples) -> Tensor:
        return examples.inputs.to(self.device)

    def _draws(self, name: str, asked: Asked, clean: CellResult) -> int:
        """How often to ask: what the model is, whatever the run says of it."""
        said = int(clean.frame["draws"].max())
        randomised = any(
            asked.again(is_randomised, self._inputs(block))
            for _, block in blocks_of(self.examples, asked.size)
        )
        if randomised != (said > 1):
            answers = "differs from answer to answer" if randomised else "always answers the same"
            self.findings.fault(f"{name} was asked {said} time(s) an example, and it {answers}")
        return DRAWS if randomised else 1

    def _clean(self, name: str, asked: Asked, clean: CellResult, draws: int) -> None:
        frame = clean.frame
        counts: list[int] = []
        for start, block in blocks_of(self.examples, asked.size):
            prediction = asked.predict(self._inputs(block), block, draws)
            rows = frame[start : start + len(block)]
            counts += prediction.wrong_draws.tolist()
            if draws > 1:
                continue
            stored = zip(rows["broken"], rows["prediction"], strict=True)
            true = zip(prediction.wrong.tolist(), prediction.classes.tolist(), strict=True)
            for i, (now, then) in enumerate(zip(true, stored, strict=True)):
                where = f"{name}: example {start + i}, unperturbed,"
                if now[0] != then[0]:
                    self._flip(where, prediction, i)
                elif now[1] != then[1]:  # between two wrong classes: the margin tells nothing
                    self._note_elsewhere(f"{where} is class {now[1]} and not {then[1]}", small=True)
        if draws > 1 and int(frame["draws"].min()) > 1:
            for column in ("wrong_draws", "choice_wrong_draws"):
                self._compare(f"{name}, unperturbed", frame[column].to_numpy(), counts)

    def _margins(self, results: Sequence[CellResult]) -> None:
        """Of a model that answers alone as in a batch, what is clearly wrong is broken."""
        for result in results:
            frame, cell = result.frame, result.cell
            wrong = frame["attacked"] & ~frame["broken"] & (frame["draws"] == 1)
            wrong &= (frame["fault"] == "") & (frame["margin"] < -ALONE)
            if wrong.any():
                self.findings.fault(
                    f"{cell.defense} × {cell.label} @ {cell.epsilon}: called unbroken with a "
                    f"negative margin (example {listed(frame['index'][wrong].tolist())})"
                )

    def _adversarial(
        self,
        name: str,
        asked: Asked,
        found: Mapping[int, Found],
        results: Sequence[CellResult],
        *,
        draws: int,
        alone: bool,
    ) -> None:
        """Judge what is stored; of a model that depends on its batch, each example alone."""
        import numpy as np
        import torch

        norm, counts = Norm(self.record.norm), []
        items = [found[index] for index in sorted(found)]
        size = 1 if alone else asked.size
        for start in range(0, len(items), size):
            block = items[start : start + size]
            block, inputs, clean = self._unpacked(name, block)
            if not block:
                continue
            moved = torch.from_numpy(np.stack(inputs))
            prediction = asked.predict(moved.to(self.device), clean, draws)
            counts += prediction.wrong_draws.tolist()
            distances = norm.distance(clean.inputs, moved).tolist()
            inside = ((moved >= 0) & (moved <= 1)).flatten(1).all(dim=1).tolist()
            for i, item in enumerate(block):
                where = f"{name}: the adversarial example of example {item.example}"
                self.findings.examples += 1
                if not inside[i]:
                    self.findings.fault(f"{where} is not in the box [0, 1]")
                if not abs(distances[i] - item.distance) <= DISTANCE_TOLERANCE:
                    self.findings.fault(
                        f"{where} is at {norm} distance {distances[i]:.9g}, not {item.distance:.9g}"
                    )
                if draws == 1 and not prediction.wrong[i]:
                    self._flip(where, prediction, i)
        if draws > 1 and items:
            self._drawn(name, items, results, counts)

    def _unpacked(
        self, name: str, block: list[Found]
    ) -> tuple[list[Found], list[np.ndarray], Examples]:
        """Adversarial examples, their inputs and the unperturbed ones; a fault for what is none."""
        kept, inputs = [], []
        for item in block:
            (clean,) = self.examples.take([item.example]).inputs.cpu().numpy()
            try:
                inputs.append(unpacked(item.input, clean))
                kept.append(item)
            except ValueError as error:
                self.findings.fault(
                    f"{name}: the adversarial example of example {item.example}: {error}"
                )
        return kept, inputs, self.examples.take([item.example for item in kept])

    def _drawn(
        self, name: str, items: list[Found], results: Sequence[CellResult], counts: list[int]
    ) -> None:
        """The draws of the outcomes that stored examples stand for, against fresh ones.

        The draws that were reported chose what counts as broken, so that they may be higher by
        chance; those before, by which a worst case is chosen, chose nothing here.
        """
        import numpy as np

        column = f"distance_{self.record.norm.lower()}"
        choice, reported = [], []
        for item in items:
            rows = [result.frame.iloc[item.example] for result in results]
            near = [
                row
                for row in rows
                if row["broken"] and abs(row[column] - item.distance) <= DISTANCE_TOLERANCE
            ]
            choice.append(near[0]["choice_wrong_draws"] if near else -1)
            reported.append(near[0]["wrong_draws"] if near else -1)
        known = np.array(choice) >= 0  # what no outcome accounts for is a fault of its own
        fresh = np.array(counts)[known]
        where = f"{name}, the adversarial examples"
        self._compare(where, np.array(choice)[known], fresh)
        self._compare(where, np.array(reported)[known], fresh, only_lower=True)

    def _compare(
        self, where: str, stored: np.ndarray, fresh: Any, *, only_lower: bool = False
    ) -> None:
        """Two counts of `DRAWS` each, of the same examples, differ by chance alone.

        Args:
            where: for a fault.
            stored: what the run counted.
            fresh: what was counted now.
            only_lower: whether all stored counts together may be higher.
        """
        import numpy as np

        then, now = np.asarray(stored, dtype=float), np.asarray(fresh, dtype=float)
        if not len(then):
            return
        share = (then + now + 1) / (2 * DRAWS + 2)  # no example is certain by its draws
        variance = 2 * DRAWS * share * (1 - share)
        apart = (now - then) / np.sqrt(variance)
        together = float((now - then).sum() / math.sqrt(variance.sum()))
        if only_lower:  # a little in each example, which adds up
            together = max(together, 0.0)
        far = np.flatnonzero(np.abs(apart) > EXAMPLE).tolist()
        if far or abs(together) > TOGETHER:
            self.findings.fault(
                f"{where}: wrong in {then.mean() / DRAWS:.1%} of the run's draws and in "
                f"{now.mean() / DRAWS:.1%} of as many fresh ones, which is not by chance"
                + (f" (number {listed(far)})" if far else "")
            )

    def _coverage(
        self, name: str, found: Mapping[int, Found], results: Sequence[CellResult]
    ) -> None:
        """Every outcome that is called broken has its proof, and every proof its outcome."""
        import numpy as np

        attacked = [r for r in results if r.cell.attack != CLEAN]
        critical = np.full(len(self.examples), np.inf)
        if attacked:
            own = [replace(r, frame=r.frame.assign(broken=r.hit)) for r in attacked]
            critical = critical_distances(own, self.record.norm)
        for index in np.flatnonzero(np.isfinite(critical)).tolist():
            proof = found.get(index)
            if proof is None or proof.distance > critical[index] + DISTANCE_TOLERANCE:
                self.findings.fault(
                    f"{name}: example {index} is called broken at {critical[index]:.9g}, "
                    "but no stored adversarial example shows it"
                )
        for index, item in sorted(found.items()):
            if not critical[index] <= item.distance + DISTANCE_TOLERANCE:
                self.findings.fault(
                    f"{name}: example {index} has a stored adversarial example at "
                    f"{item.distance:.9g}, and no outcome accounts for it"
                )

    def _flip(self, where: str, prediction: Prediction, i: int) -> None:
        margin = abs(float(prediction.margins[i]))
        text = f"{where} is judged otherwise (margin {margin:.2g})"
        self._note_elsewhere(text, small=margin < FLIP_MARGIN)

    def _note_elsewhere(self, text: str, *, small: bool) -> None:
        """A difference: no more than a note where it is small, and the machine another."""
        if small and not same_machine(self.record, self.device):
            self.findings.note(f"{text}, on another processor or GPU, or by other versions")
        else:
            self.findings.fault(text)
