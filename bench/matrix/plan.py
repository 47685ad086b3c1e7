"""The plan of a run: its cells, and a reason beside each that cannot run.

A cell's key is a digest of all that could change an outcome, so that a stored shard is reused
exactly when it would come out the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from bench.matrix.judge import JUDGING_VERSION
from bench.record.files import digest_of
from bench.record.schema import version_of
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from bench.api import Attack
    from bench.models.contenders import Target
    from bench.record.schema import Scope, Source
    from bench.threat import Norm

#: The name under which the predictions on unperturbed inputs are stored, at epsilon 0.
CLEAN = "clean"
ZERO = Epsilon("0", Fraction(0))


@dataclass(frozen=True)
class Setting:
    """What all cells of a run share."""

    norm: Norm
    epsilons: tuple[Epsilon, ...]
    seed: int
    n: int
    shape: tuple[int, int, int]
    classes: int
    data_digest: str
    device_type: str
    shard_size: int
    candidates: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The examples that files hold candidates for, by the attack that stands for the file."""

    @property
    def refills(self) -> bool:
        """Whether a shard goes on until it holds `shard_size` examples that are attacked.

        A GPU takes as long for a half-empty batch as for a full one. On the CPU a smaller batch
        is cheaper, and more shards are more for the workers to share.
        """
        return self.device_type != "cpu"

    def shards(self, attacked: Sequence[int] | None = None) -> list[tuple[int, int]]:
        """The (start, stop) of each shard, in order; together they cover all examples.

        Args:
            attacked: the examples that a cell attacks, ascending; all where None.
        """
        if attacked is None or not self.refills:
            attacked = range(self.n)
        firsts = attacked[self.shard_size :: self.shard_size]
        return list(pairwise([0, *firsts, self.n]))

    @property
    def judging(self) -> dict[str, Any]:
        """What decides whether a candidate counts."""
        return {"version": JUDGING_VERSION, "precision": "fp32", "device": self.device_type}


@dataclass(frozen=True)
class Cell:
    """One defense × one attack × one threat model."""

    target: Target
    attack: Attack | None
    """None for the clean predictions."""
    epsilon: Epsilon
    key: str = ""
    scope: Scope = "all"
    source: Source = "attacked"
    """`inferred`: examples are left out whose outcome follows from another epsilon."""
    chosen: tuple[int, ...] = ()
    """The examples that it attacks, but for clean errors; where empty, what its scope says."""
    skipped: str = ""
    """Why it cannot run."""
    round: int = 0
    """Of the escalation that asked for it."""
    repeat: int = 0
    """Another number is another seed: whether a finding recurs."""

    @property
    def attack_name(self) -> str:
        """The attack's canonical name, with `#1` for its first repetition; or `clean`."""
        if self.attack is None:
            return CLEAN
        return f"{self.attack.name}#{self.repeat}" if self.repeat else self.attack.name


def plan_cells(
    targets: Sequence[Target], attacks: Sequence[Attack], setting: Setting
) -> list[Cell]:
    """All cells of a run, the clean predictions first; some get their key later."""
    cells = [Cell(target, None, ZERO, cell_key(target, None, ZERO, setting)) for target in targets]
    for target in targets:
        for attack in attacks:
            cells += [_plan_first(target, attack, epsilon, setting) for epsilon in setting.epsilons]
    return cells


def _plan_first(target: Target, attack: Attack, epsilon: Epsilon, setting: Setting) -> Cell:
    """A cell as the user asked for it: of a file that holds only some examples, it is no row."""
    covered = setting.candidates.get(attack.name, range(setting.n))
    if len(covered) < setting.n:
        return plan_cell(target, attack, epsilon, setting, scope="remaining", chosen=covered)
    return plan_cell(target, attack, epsilon, setting)


def plan_cell(
    target: Target,
    attack: Attack,
    epsilon: Epsilon,
    setting: Setting,
    *,
    scope: Scope | None = None,
    round: int = 0,  # noqa: A002 - the word for it
    repeat: int = 0,
    chosen: Sequence[int] = (),
) -> Cell:
    """One cell; with its key, but for scope `remaining`, whose key follows from what is left."""
    cell = Cell(
        target,
        attack,
        epsilon,
        scope=scope or attack.scope,
        skipped=why_not(target, attack, setting) or "",
        round=round,
        repeat=repeat,
        chosen=tuple(chosen),
    )
    if cell.skipped or cell.scope == "remaining":
        return cell
    return keyed(cell, setting, chosen or None)


def keyed(cell: Cell, setting: Setting, remaining: Iterable[int] | None = None) -> Cell:
    """The cell with its key: all right examples are attacked, or those `remaining`."""
    key = cell_key(
        cell.target, cell.attack, cell.epsilon, setting, remaining=remaining, repeat=cell.repeat
    )
    return replace(cell, key=key)


def why_not(target: Target, attack: Attack, setting: Setting) -> str | None:
    """Why an attack cannot run on a defense here, or None."""
    if attack.needs == "surrogates" and not target.surrogates:
        return "the defense declares no surrogates"
    if attack.needs == "candidates" and attack.name not in setting.candidates:
        return "its file is not here: python -m bench import-adversarial adds one"
    if attack.needs == "source" and source_of(attack) not in target.sources:
        name = source_of(attack)
        if name == target.name.partition("[")[0]:
            return "the defense has nothing to transfer from: it is the source itself"
        return f"the defense has nothing to transfer from: no weights of its {name}"
    return attack.why_not(norm=setting.norm, shape=setting.shape, classes=setting.classes)


def source_of(attack: Attack) -> str:
    """What a transfer attack starts from, as its parameter says it."""
    return str(attack.parameters.get("source", "twin"))


def cell_key(
    target: Target,
    attack: Attack | None,
    epsilon: Epsilon,
    setting: Setting,
    remaining: Iterable[int] | None = None,
    repeat: int = 0,
) -> str:
    """Digest of all that could change the outcomes of a cell."""
    content: dict[str, Any] = {
        "defense": {"name": target.name, **target.identity},
        "norm": setting.norm.value,
        "epsilon": str(epsilon.exact),
        "data": setting.data_digest,
        "seed": setting.seed,
        "shard_size": setting.shard_size,
        "judging": setting.judging,
        "versions": {"torch": version_of("torch")},
    }
    if attack is not None:
        content["attack"] = {
            "name": attack.name,
            "parameters": attack.parameters,
            "version": attack.version,
        }
        content["versions"] |= {library: version_of(library) for library in attack.libraries}
        if attack.needs == "source":
            content["source"] = target.sources[source_of(attack)]
    if remaining is not None:
        content["remaining"] = list(remaining)
    if repeat:
        content["repeat"] = repeat
    return digest_of(content)[:32]
