"""What `run.json` says, against the data, the weights and the code of whoever verifies."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import UsageError
from bench.matrix.plan import Planned, Setting, why_not
from bench.record.files import digest_of
from bench.record.provenance import commit, version_of
from bench.record.schema import CLEAN, EXTERNAL, AttackRecord
from bench.run.recording import figures_of, whole_suites
from bench.run.verification.findings import listed
from bench.threat import Epsilon, Norm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.api import Attack
    from bench.models.contenders import Contender
    from bench.record.results import CellResult
    from bench.record.schema import CellRecord, DatasetRecord, RunRecord
    from bench.run.verification.findings import Findings
    from bench.run.verification.sources import Sources

#: So many ids one of which a run has that does not say its variant, as older ones do not.
VARIANTS = 16


def setting_of_record(record: RunRecord) -> Setting:
    """What all cells of a stored run share."""
    return Setting(
        norm=Norm(record.norm),
        epsilons=tuple(map(Epsilon.parse, record.epsilons)),
        seed=record.seed,
        n=record.dataset.n,
        shape=record.dataset.shape,
        classes=len(record.dataset.class_names),
        data_digest=record.dataset.digest,
        device_type=str(record.judging["device"]),
        shard_size=record.shard_size,
    )


def same_software(record: RunRecord) -> bool:
    """Whether the run says that it was made by the versions and the commit that are here."""
    versions = record.provenance.get("versions")
    if not isinstance(versions, dict) or record.provenance.get("commit") != _commit_here():
        return False
    return all(version_of(str(name)) == version for name, version in versions.items())


@functools.cache
def _commit_here() -> str | None:
    return commit()


def check_data(
    record: RunRecord, true: DatasetRecord, sources: Sources, findings: Findings
) -> None:
    """The examples are those of the run, and are called what they are.

    Args:
        record: the run's.
        true: what is said of the data that whoever verifies has.
        sources: where those are.
        findings: to be added to.
    """
    said = record.dataset
    if true.digest != said.digest:
        findings.fault(
            f"the data are not those of the run: digest {true.digest[:12]} instead of "
            f"{said.digest[:12]}"
        )
    # Elsewhere they may be called otherwise, and other files may lie beside them.
    free = ("name", "family", "written") if sources.dataset else ()
    for key in ("n", "shape", "class_names", "name", "family", "written", "notes"):
        claimed, here = getattr(said, key), getattr(true, key)
        if claimed == here:
            continue
        where = f"dataset.{'source' if key == 'written' else key}"
        differs = f"run.json: {where} is {claimed!r}, and the data's is {here!r}"
        if key in free or (key == "notes" and said.written):
            findings.note(differs)
            findings.recorded.append(f"{where}: {claimed!r}")
        else:
            findings.fault(differs)
    judging = setting_of_record(record).judging
    if record.judging != judging or record.judging["device"] not in ("cpu", "cuda"):
        findings.fault(
            f"the run was judged by other rules: {record.judging}, and this Winnow judges by "
            f"{judging}"
        )


def check_defenses(
    record: RunRecord, contenders: Mapping[str, Contender], findings: Findings
) -> None:
    """Networks, twins, published figures, and who stands beside whom."""
    asked = [name for name, entry in record.defenses.items() if not entry.control]
    if not asked:
        findings.fault("run.json names no defense that was asked for")
    twins = {record.defenses[name].twin for name in asked}
    for name, entry in record.defenses.items():
        true = contenders[name].record
        if _is_file(record, name):  # whoever verifies may call file and function otherwise
            network = registry.defenses.create(name).network(shape=record.dataset.shape)
            true = true.model_copy(update={"network": network})
            findings.recorded.append(f"what the file and function of {name} are called")
        for key in ("network", "twin", "published"):
            claimed, here = getattr(entry, key), getattr(true, key)
            if claimed != here:
                findings.fault(f"{name}: its {key} is {here!r}, and not {claimed!r}{older(record)}")
        if entry.control and name not in twins:
            findings.fault(f"{name} is called a control, and is nobody's twin")


def check_attacks(record: RunRecord, findings: Findings) -> None:
    """What attacks declare, which the examination reads, and which suites and figures they are."""
    missing = []
    for name, declared in record.attacks.items():
        attack = attack_of(record, name)
        if attack is None:
            missing.append(name)
        elif AttackRecord.of(attack) != declared:
            findings.fault(f"attacks.{name} is not what the attack declares{older(record)}")
    for name in sorted({cell.attack for cell in record.cells} - {CLEAN} - record.attacks.keys()):
        findings.fault(f"run.json has cells of {name}, and not what it declares")
    for cell in record.cells:
        attack = attack_of(record, cell.attack) if cell.attack != CLEAN else None
        if attack is None or cell.scope in ("evidence", "check") or cell.round:
            continue
        if cell.scope != attack.scope and not cell.attack.startswith(EXTERNAL):
            findings.fault(
                f"{cell.defense} × {cell.label} @ {cell.epsilon} is of scope {cell.scope}, and "
                f"{cell.attack} of scope {attack.scope}"
            )
    if missing:
        findings.note(f"not installed here: {listed(missing)}; what they declare is recorded")
        findings.recorded.append(f"what {listed(missing)} declares")
    norm = Norm(record.norm)
    followed: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "suites": (record.suites, whole_suites({cell.label for cell in record.cells}, norm)),
        "figures": (record.figures, figures_of(record.cells)),
    }
    for key, (said, true) in followed.items():
        claimed = {
            name: value
            for name, value in said.items()
            if name in registry.suites or attack_of(record, name) is not None or not missing
        }
        if claimed != true:
            findings.fault(f"run.json: {key} is not what the attacks make{older(record)}")


def check_skipped(
    record: RunRecord, contenders: Mapping[str, Contender], findings: Findings
) -> None:
    """What is called skipped cannot run here either; it may have lacked weights or a library."""
    setting, able = setting_of_record(record), set()
    for cell in record.cells:
        if cell.cause in ("inapplicable", "not-here") and not cell.attack.startswith(EXTERNAL):
            attack = attack_of(record, cell.attack)
            if attack and why_not(contenders[cell.defense], attack, setting) is None:
                able.add(f"{cell.defense} × {cell.label}")
    if able:
        findings.note(f"called skipped, and can run here: {listed(sorted(able))}")


def attack_of(record: RunRecord, name: str) -> Attack | None:
    """The attack that a record names, as it is here; None where it is not installed."""
    try:
        attack = registry.attacks.create(name)
    except UsageError:
        return None
    if name.startswith(EXTERNAL) and name in record.attacks:
        attack.parameters = dict(record.attacks[name].parameters)  # the digest of the file
    return attack


def check_identity(
    record: RunRecord,
    results: Mapping[str, Sequence[CellResult]],
    contenders: Mapping[str, Contender],
    findings: Findings,
) -> None:
    """The run's id and the names of folders, which are digests of what they are about.

    They carry no figure. Another version makes others, so that they can be computed only with the
    software that made the run.
    """
    if not same_software(record) or any(_is_file(record, name) for name in record.defenses):
        findings.recorded.append("the run's id and the keys of its cells: other software made them")
        return
    told = "variant" in record.model_fields_set
    ids = [_id(record, contenders, v) for v in ([record.variant] if told else range(VARIANTS))]
    if record.id not in ids:
        findings.fault(f"run.json: the id of such a run is {ids[0]}, not {record.id}")
    for name, entry in record.defenses.items():
        if entry.key != contenders[name].key:
            findings.fault(f"{name}: its key is {contenders[name].key}, not {entry.key}")
    setting = setting_of_record(record)
    for name, own in results.items():
        for result in own:
            cell = result.cell
            attack = None if cell.attack == CLEAN else attack_of(record, cell.attack)
            if not result.finished or (cell.attack != CLEAN and attack is None):
                continue
            planned = Planned(cell, contenders[name], attack, beside=result.beside(own))
            if not _follows(setting, result, planned):
                findings.fault(
                    f"{name} × {cell.label} @ {cell.epsilon}: its key does not follow from what "
                    "it is"
                )
    findings.proven.append("the run's id and the keys of its cells")


def _id(record: RunRecord, contenders: Mapping[str, Contender], variant: int) -> str:
    """What `Prepared.id` is of such a run."""
    asked = [name for name, entry in record.defenses.items() if not entry.control]
    content: dict[str, Any] = {
        "defenses": {name: contenders[name].identity for name in asked},
        "data": record.dataset.digest,
        "norm": record.norm,
        "seed": record.seed,
    }
    return digest_of(content | ({"variant": variant} if variant else {}))[:16]


def _follows(setting: Setting, result: CellResult, planned: Planned) -> bool:
    """Whether a key is that of a cell that attacked all right examples, or those that it did.

    Or those that were left to an attack that goes over epsilons by itself.
    """
    alone, attacked = replace(planned, beside=None), result.frame["attacked"]
    left = result.frame["index"][attacked].tolist()
    try:
        keys = {alone.keyed(setting).key, alone.keyed(setting, left).key}
        if planned.beside is not None:
            asked = planned.beside[str(result.epsilon.exact)]
            keys.add(planned.keyed(setting, asked).key)
        return result.cell.key in keys
    except KeyError:  # a transfer's source has no weights here
        return True


def _is_file(record: RunRecord, name: str) -> bool:
    """Whether a defense of a run on a data set is a file's own."""
    return bool(record.dataset.written) and registry.defenses.create(name).executes


def older(record: RunRecord) -> str:
    """What to add to a fault where other software may be why."""
    if same_software(record):
        return ""
    return " (by the code that is here, and the run names other versions: verify it with those)"


def check_cells(record: RunRecord, findings: Findings) -> None:
    """Cells by what `run.json` says of them alone."""
    places = [cell.place for cell in record.cells]
    for place in sorted({place for place in places if places.count(place) > 1}):
        findings.fault(f"run.json has the cell {' '.join(map(str, place))} more than once")
    if record.sweep == "each" and any(cell.inferred for cell in record.cells):
        findings.fault("run.json: sweep is each, and something was inferred")
    keys = [cell.key for cell in (*record.cells, *record.replaced) if cell.key]
    for key in sorted({key for key in keys if keys.count(key) > 1}):
        findings.fault(f"run.json has two cells with the key {key}")
    # Of what a killed command left behind only the place is known.
    earlier = [cell for cell in record.replaced if cell.status != "incomplete"]
    for cell in (*record.cells, *earlier):
        where = f"{cell.defense} × {cell.label} @ {cell.epsilon}"
        for wrong in _oddities(record, cell):
            findings.fault(f"{where}: {wrong}")
    taken = set(places)
    for cell in record.replaced:
        if cell.status == "ok" and cell.place not in taken:
            findings.fault(f"{' '.join(map(str, cell.place))} is called replaced, and by nothing")
    for name in record.defenses:
        if not any(cell.place == (name, CLEAN, "0", 0) for cell in record.cells):
            findings.fault(f"{name} has no cell of clean predictions")


def _oddities(record: RunRecord, cell: CellRecord) -> list[str]:
    """What a cell cannot be."""
    found = []
    if cell.attack == CLEAN and (cell.scope, cell.repeat, cell.round) != ("all", 0, 0):
        found.append("clean predictions are of scope all, without repeat or round")
    if cell.attack == CLEAN and (cell.epsilon != "0" or cell.inferred):
        found.append("clean predictions are at epsilon 0, and not inferred")
    if cell.repeat < 0 or cell.round < 0:
        found.append("repeat and round are numbers from 0 up")
    if cell.repeat and cell.scope not in ("evidence", "check"):
        found.append(f"a repeat is of scope evidence or check, not {cell.scope}")
    if cell.round and cell.scope != "remaining":
        found.append(f"a cell of an escalation is of scope remaining, not {cell.scope}")
    if cell.inferred and cell.scope not in ("all", "remaining"):
        found.append(f"nothing is inferred in a cell of scope {cell.scope}")
    row = cell.scope in ("all", "remaining") and cell.attack != CLEAN
    if row and cell.epsilon not in record.epsilons:
        found.append("its epsilon is none of the run's")
    if (cell.status == "skipped") == bool(cell.key) and cell.status in ("ok", "skipped"):
        found.append(f"status {cell.status} with the key {cell.key!r}")
    if cell.status == "ok" and cell.cause:
        found.append(f"status {cell.status} with the cause {cell.cause!r}")
    return found
