"""Adversarial examples from elsewhere, judged and added to a run's worst case."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench import registry
from bench.errors import UsageError
from bench.record.results import broken_within, critical_distances, read_cells
from bench.record.schema import EXTERNAL
from bench.record.store import RunStore, open_run
from bench.run import Result, run
from bench.run.candidates import CandidateFile
from bench.run.identity import own_run
from bench.run.prepare import prepare
from bench.threat import Epsilon, ThreatModel

if TYPE_CHECKING:
    from pathlib import Path

    from bench.api import Attack, Candidates
    from bench.record.results import CellResult
    from bench.record.schema import RunRecord
    from bench.run.config import RunConfig
    from bench.run.prepare import Prepared

_NAME = re.compile(r"[a-z0-9]+(?:[-.][a-z0-9]+)*")


@dataclass(frozen=True)
class Judged:
    """What candidates are worth against one defense at one epsilon, in examples."""

    defense: str
    epsilon: str
    candidates: int
    """Judged: those of examples that the model gets right."""
    projected: int
    """Of them, brought back into the ball or the box before they were judged."""
    refused: int
    """Of them, not finite, or outside even so."""
    broken: int
    """Of them, adversarial here."""
    alone: int
    """Examples that these candidates break within this epsilon, and nothing else in the run."""


@dataclass(frozen=True)
class Imported:
    """A run with candidates in it."""

    result: Result
    attack: str
    judged: list[Judged]


def import_adversarial(config: RunConfig, path: Path, name: str) -> Imported:
    """Judge the candidates of a file, and add them to the run of the same weights, data and seed.

    A run that is not there yet is made. One that is there keeps its epsilons, at all of which the
    candidates are judged, its shards and its kind of device; the verdict is weighed again.

    Args:
        config: which run; its attacks do not matter.
        path: npz or safetensors, see `bench.run.candidates`.
        name: the attack is called `external:NAME`.

    Raises:
        DataError: the file is not what it has to be.
        UsageError: whatever in the configuration cannot be, or the run knows another file by this
            name.
        StoreError: the run's folder is in use or cannot be written.
    """
    file = CandidateFile.open(path)
    n = config.n if config.n is not None or file.indexed else len(file)
    config = dataclasses.replace(
        config, n=n, attacks=EXTERNAL + name, examine=False, fresh=False, budget=None
    )
    attack = attack_for(name)
    prepared = own_run(prepare(config, attacks=[]))
    previous = RunStore(prepared.folder).read_record()
    prepared = with_candidates(prepared, attack, file.read(prepared.examples))
    if previous is not None:
        prepared = _extending(prepared, previous)
    result = run(prepared)
    assert result.folder is not None
    store, record = open_run(result.folder)
    results = read_cells(store, record)
    asked = [c.name for c in prepared.contenders]
    found = [item for who in asked for item in _judged(record, who, results[who], EXTERNAL + name)]
    return Imported(result, EXTERNAL + name, found)


def name_of(path: Path) -> str:
    """What candidates are called where nobody says it: the file's name, as far as it can be one."""
    words = re.findall(r"[a-z0-9]+(?:\.[a-z0-9]+)*", path.stem.lower())
    return "-".join(words) or "candidates"


def attack_for(name: str) -> Attack:
    """The attack `external:NAME`, which proposes what a file holds.

    Raises:
        UsageError: the name cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name adversarial examples: write lower-case letters and digits, "
            "joined by hyphens or dots (--name)"
        )
    return registry.attacks.create(EXTERNAL + name)


def with_candidates(prepared: Prepared, attack: Attack, held: Candidates) -> Prepared:
    """A run whose one attack proposes what a file holds."""
    attack.parameters = {"sha256": held.digest}
    return dataclasses.replace(
        prepared,
        attacks=[attack],
        candidates={attack.name: held},
        setting=dataclasses.replace(prepared.setting, candidates={attack.name: held.index}),
    )


def _extending(prepared: Prepared, previous: RunRecord) -> Prepared:
    """The import as a part of a run that is there: with its epsilons, shards and device."""
    (attack,) = prepared.attacks
    known = previous.provenance.get("imports", {}).get(attack.name)
    if known and known.get("sha256") != attack.parameters["sha256"]:
        raise UsageError(
            f"run {previous.id} has other adversarial examples by the name {attack.name} (SHA-256 "
            f"{known.get('sha256', '')[:12]}, this file's is "
            f"{str(attack.parameters['sha256'])[:12]}); give another --name"
        )
    config, setting = prepared.config, prepared.setting
    kind = previous.judging.get("device", setting.device_type)
    if kind != setting.device_type:
        raise UsageError(
            f"run {previous.id} was judged on {kind}, and this would be on {setting.device_type}; "
            f"give --device {kind}, or another --out for a run of its own"
        )
    if previous.judging != setting.judging:
        raise UsageError(
            f"run {previous.id} was judged by other rules ({previous.judging}, now "
            f"{setting.judging}); give another --out for a run of its own"
        )
    stored = Epsilon.parse_many(previous.epsilons)
    epsilons = Epsilon.parse_many([*stored, *(config.epsilons or ())])
    for epsilon in epsilons:
        ThreatModel(config.norm, epsilon)
    return dataclasses.replace(
        prepared,
        config=dataclasses.replace(config, headline=previous.headline),
        setting=dataclasses.replace(
            setting, epsilons=tuple(epsilons), shard_size=previous.shard_size
        ),
    )


def _judged(
    record: RunRecord, defense: str, results: list[CellResult], attack: str
) -> list[Judged]:
    """What became of the candidates, from what is stored."""
    own = [result for result in results if result.cell.attack == attack]
    others = [result for result in results if result.cell.attack != attack]
    if not own:
        return []
    mine, rest = (critical_distances(some, record.norm) for some in (own, others))
    found = []
    for result in sorted(own, key=lambda result: float(result.epsilon)):
        frame, epsilon = result.frame, result.epsilon
        attacked = frame["attacked"]
        alone = broken_within(mine, epsilon) & ~broken_within(rest, epsilon)
        found.append(
            Judged(
                defense=defense,
                epsilon=epsilon.text,
                candidates=int(attacked.sum()),
                projected=int((attacked & frame["projected"]).sum()),
                refused=int((attacked & (frame["fault"] != "")).sum()),
                broken=int((attacked & frame["broken"]).sum()),
                alone=int(alone.sum()),
            )
        )
    return found


def to_json(imported: Imported) -> dict[str, Any]:
    """For a program: the run, what the candidates are worth, and the summary."""
    return {
        "run": imported.result.summary["run"],
        "attack": imported.attack,
        "judged": [vars(item) for item in imported.judged],
        "summary": imported.result.summary,
    }
