"""`run.json` of a prepared run: what it asked for, what became of it, and where it comes from."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal

from bench import registry
from bench.errors import UsageError
from bench.record.provenance import Surroundings, provenance
from bench.record.schema import CLEAN, AttackRecord, Cell, CellRecord, RunRecord
from bench.record.summary import NOT_EXAMINED, examinations
from bench.threat import Epsilon
from bench.trust import attack_marks, cases, compare, evidence_of, power, verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from bench.record.results import CellResult
    from bench.record.schema import Place
    from bench.record.store import RunStore
    from bench.run.prepare import Prepared
    from bench.threat import Norm
    from bench.trust import Case

RunStatus = Literal["running", "complete", "interrupted", "failed"]


def record_of(
    prepared: Prepared, previous: RunRecord | None, cells: Sequence[CellRecord], status: RunStatus
) -> RunRecord:
    """`run.json`: these cells, and those that earlier commands added to the same run.

    Args:
        prepared: the run.
        previous: what is stored of it.
        cells: what became of those asked for.
        status: of the run.
    """
    config, setting, imports = prepared.config, prepared.setting, _imports(prepared)
    earlier = previous.defenses if previous else {}
    known = [*(previous.replaced + previous.cells if previous else []), *cells]
    merged = latest([*(previous.cells if previous else []), *_as_known(previous, cells)])
    own = {
        c.name: c.record.model_copy(
            update={
                "control": c.role == "control",
                "examined": earlier[c.name].examined if c.name in earlier else {},
            }
        )
        for c in prepared.contenders
    }
    escalates = config.examine and config.escalate
    budget = prepared.escalation_budget if escalates else None
    stored = map(Epsilon.parse, previous.epsilons if previous else [])
    epsilons = Epsilon.parse_many([*stored, *setting.epsilons])
    extended = previous if imports or left_by(previous, cells) else None
    if extended and status == "complete":  # what the run's own command left is still to do
        status = "complete" if extended.status == "complete" else "interrupted"
    return RunRecord(
        id=prepared.id,
        status=status,
        dataset=prepared.dataset,
        norm=config.norm.value,
        seed=config.seed,
        variant=prepared.variant,
        epsilons=[epsilon.text for epsilon in epsilons],
        headline=prepared.headline.text,
        shard_size=setting.shard_size,
        judging=setting.judging,
        defenses=earlier | own,
        suites=whole_suites({cell.label for cell in merged.values()}, config.norm),
        figures=figures_of(merged.values()),
        sweep="bracket" if previous and previous.sweep == "bracket" else prepared.sweep,
        run_budget=extended.run_budget if extended else config.budget,
        escalation_budget=budget
        if budget is not None or previous is None
        else previous.escalation_budget,
        cells=sorted(merged.values(), key=_order),
        replaced=_replaced(known, merged.values()),
        attacks=_attacks(prepared, previous, merged.values()),
        provenance=_provenance(prepared, previous, imports, extended),
    )


def latest(cells: Iterable[CellRecord]) -> dict[Place, CellRecord]:
    """By place, the last of these cells."""
    return {cell.place: cell for cell in cells}


def _as_known(previous: RunRecord | None, cells: Iterable[CellRecord]) -> Iterator[CellRecord]:
    """These cells; what was finished stays so, and what was asked for as a row stays one.

    A command has nothing of a cell that it has not come to, or that its budget leaves out: with the
    key that it would have, an earlier one's is what there is. What others left, and what a sweep
    left out, is known only when it is attacked. An examination attacks as many examples as a row
    does, and what is left of them when it escalates.
    """
    known = {cell.place: cell for cell in (previous.cells if previous else [])}
    for cell in cells:
        before = known.get(cell.place, cell)
        finished = before.status == "ok" and (before.inferred or cell.key in ("", before.key))
        row = before.scope == "all" and not before.round and _of_examination(cell)
        if cell.status != "ok" and finished:
            yield before
        elif row and cell.scope == "evidence":
            yield cell.model_copy(update={"scope": "all"})
        else:
            yield before if row and before.status == "ok" else cell


def _replaced(known: Iterable[CellRecord], kept: Iterable[CellRecord]) -> list[CellRecord]:
    """The cells with outcomes of their own whose place others took, in the order of a record."""
    keys = {cell.key for cell in kept}
    gone = {cell.key: cell for cell in known if cell.key and cell.key not in keys}
    return sorted(gone.values(), key=lambda cell: (_order(cell), cell.key))


def with_strays(store: RunStore, record: RunRecord | None) -> RunRecord | None:
    """The record with the cells that a command stored and was killed before it could name them.

    Raises:
        StoreError: a shard of such a cell is damaged.
    """
    if record is None:
        return None
    named = {cell.key for cell in (*record.cells, *record.replaced)}
    strays = []
    for key in store.stored_keys():
        if key not in named and (shard := next(store.shards(key), None)) and shard.place:
            cell = Cell(**shard.place._asdict())
            strays.append(CellRecord(**cell.model_dump(), key=key))
    return record.model_copy(update={"replaced": [*record.replaced, *strays]})


def left_by(previous: RunRecord | None, cells: Iterable[CellRecord]) -> list[CellRecord]:
    """What earlier commands were asked for, left unfinished, and this command is not about.

    What only their examination asked for is none of it: another one may ask for other cells.
    """
    own = {cell.place for cell in cells}
    asked = [c for c in (previous.cells if previous else []) if not _of_examination(c)]
    return [cell for cell in asked if cell.status == "incomplete" and cell.place not in own]


def without_left(
    record: RunRecord, prepared: Prepared, filled: Iterable[CellRecord], stored: Iterable[str]
) -> RunRecord:
    """The record without what earlier examinations left undone and this one does not ask for.

    What a budget cut short asked for cells that only its gaps called for; where an examination of
    the same defense and epsilon took its place, nobody will fill them.

    Args:
        record: of all cells.
        prepared: the run.
        filled: what became of the cells that this command asked for, its examination's included.
        stored: keys of the cells that have outcomes: they stay known.
    """
    own = {cell.place for cell in filled}
    names = {contender.name for contender in prepared.contenders}
    examined = {epsilon.text for epsilon in prepared.examined}
    swept = {epsilon.text for epsilon in prepared.setting.epsilons} if examined else set()

    def asked_again(cell: CellRecord) -> bool:
        """Whether this command's examination would ask for it, if it had to be filled."""
        if cell.round and not prepared.config.escalate:
            return False
        if cell.scope == "check":
            return cell.epsilon in swept
        # Measurements are also made at radii of their own, which are no epsilon of the run.
        return cell.epsilon in examined or cell.epsilon not in record.epsilons

    gone = [
        cell
        for cell in record.cells
        if cell.status in ("incomplete", "skipped")
        and _of_examination(cell)
        and cell.place not in own
        and cell.defense in names
        and asked_again(cell)
    ]
    have = {*stored}
    kept = [cell for cell in record.cells if cell not in gone]
    known = [*record.replaced, *(cell for cell in gone if cell.key in have)]
    return record.model_copy(update={"cells": kept, "replaced": _replaced(known, kept)})


def _of_examination(cell: CellRecord) -> bool:
    """Whether only an examination asks for such a cell."""
    return cell.scope not in ("all", "remaining") or bool(cell.round or cell.repeat)


def _imports(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """The files that stand among its attacks, by attack."""
    return {
        attack.name: {
            **attack.parameters,
            "examples": len(prepared.candidates[attack.name].index),
            "command": prepared.config.command,
        }
        for attack in prepared.attacks
        if attack.name in prepared.candidates
    }


def _provenance(
    prepared: Prepared,
    previous: RunRecord | None,
    imports: dict[str, Any],
    extended: RunRecord | None,
) -> dict[str, Any]:
    """Where the figures come from, and the sources and imported files of earlier commands.

    `isolated`: whether defenses and attacks ran in processes of their own.

    What only extends a run leaves the command there that continues it.
    """
    earlier = previous.provenance if previous else {}
    where = prepared.surroundings or Surroundings.of(prepared.device)
    found = provenance(prepared.device, where, prepared.config.command)
    found["isolated"] = prepared.workers > 0
    if extended:
        found = dict(earlier)
    sources = {c.name: c.record.weights_digest for c in prepared.starts}
    for key, own in (("sources", sources), ("imports", imports)):
        if together := earlier.get(key, {}) | own:
            found[key] = together
    return found


def whole_suites(attacks: set[str], norm: Norm) -> dict[str, list[str]]:
    """The suites all of whose attacks are among these; not `all`, which is the worst case."""
    members = {
        name: [attack.name for attack in registry.create_attacks(name, norm)]
        for name in registry.suites
        if name != "all"
    }
    return {name: names for name, names in members.items() if attacks.issuperset(names)}


def figures_of(cells: Iterable[CellRecord]) -> dict[str, str]:
    """Of suites, and of attacks among these cells, the published figure that they give."""
    found = {name: suite.figure for name, suite in registry.suites.items() if suite.figure}
    for name in {cell.attack for cell in cells} - {CLEAN}:
        with contextlib.suppress(UsageError):
            if figure := registry.attacks.get(name.partition("[")[0]).figure:
                found[name] = figure
    return dict(sorted(found.items()))


def _order(cell: CellRecord) -> tuple[str, str, Fraction]:
    """The order of cells in a record, whatever the order of the commands that filled them."""
    return cell.defense, cell.label, Fraction(cell.epsilon)


def _attacks(
    prepared: Prepared, previous: RunRecord | None, cells: Iterable[CellRecord]
) -> dict[str, AttackRecord]:
    """What its attacks declare, and those that its examination may ask for."""
    given = {attack.name: attack for attack in prepared.attacks}
    names = {cell.attack for cell in cells if cell.attack != CLEAN}
    found = dict(previous.attacks) if previous else {}
    missing = names - found.keys()
    if prepared.config.examine:  # which asks for them as they are now
        missing |= {*prepared.menu.names}
    for name in sorted(missing - given.keys()):
        with contextlib.suppress(UsageError):  # of an earlier command, and not installed now
            given[name] = registry.attacks.create(name)
    return found | {name: AttackRecord.of(attack) for name, attack in given.items()}


def completed(record: RunRecord) -> RunRecord:
    """The record with what attacks declare, where an older run did not note it."""
    if record.attacks:
        return record
    found = {}
    for name in sorted({cell.attack for cell in record.cells} - {CLEAN}):
        with contextlib.suppress(UsageError):
            found[name] = AttackRecord.of(registry.attacks.create(name))
    return record.model_copy(update={"attacks": found})


def examined(record: RunRecord, results: dict[str, list[CellResult]]) -> dict[str, dict[str, Any]]:
    """Evidence, verdict, marks and comparison with the twin, of each defense, ready for JSON.

    Those of the headline epsilon stand by themselves, others in `examinations`; in `verdicts` every
    epsilon has its word. Nothing is said of outcomes that were not examined as they are now.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, case in cases(completed(record), results).items():
        if case.clean is None:
            continue
        here = record.examined(name)
        examinations = {
            epsilon.text: _examination(case.at_epsilon(epsilon))
            for epsilon in case.epsilons
            if epsilon.text in here
        }
        found[name] = {
            "verdicts": {
                epsilon.text: examinations[epsilon.text]["verdict"]["level"]
                if epsilon.text in examinations
                else unexamined(case.at_epsilon(epsilon))
                for epsilon in case.epsilons
            },
            **examinations.pop(record.headline, {}),
            "examinations": examinations,
        }
    return found


def evidence_file(summary: dict[str, Any]) -> dict[str, Any]:
    """What `evidence.json` holds: the evidence of a summary, by defense and epsilon."""
    return {
        name if epsilon == summary["headline"] else f"{name} @ {epsilon}": found["evidence"]
        for group in ("defenses", "controls")
        for name, part in summary[group].items()
        for epsilon, found in examinations(summary, part).items()
    }


def _examination(case: Case) -> dict[str, Any]:
    """What is said of a defense at one epsilon, where evidence was gathered."""
    evidence = evidence_of(case)
    comparison, able = compare(case), power(case)
    return {
        "evidence": [item.to_json() for item in evidence],
        "verdict": verdict(evidence, case).to_json(),
        "marks": attack_marks(case, evidence),
        "comparison": comparison.to_json() if comparison else None,
        "power": able.to_json() if able else None,
    }


def unexamined(case: Case) -> str:
    """The word for a figure without evidence: only one at chance among many speaks for itself."""
    return "broken" if case.at_chance and not case.few_classes else NOT_EXAMINED
