"""The plan of a run: its cells, and why not beside each that cannot run.

A cell's key is a digest of all that could change an outcome, so that a stored shard is reused
exactly when it would come out the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.matrix.judge import JUDGING_VERSION
from bench.record.files import digest_of
from bench.record.provenance import version_of
from bench.record.schema import CLEAN, Cell, CellRecord
from bench.registry.grammar import Written
from bench.threat import Epsilon

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.api import Attack
    from bench.models.contenders import Contender
    from bench.record.schema import Cause, Status
    from bench.threat import Norm

#: That of the clean predictions.
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
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of libraries, where those are meant that a stored run had; else those installed count."""

    def version(self, library: str) -> str:
        """Of a distribution, as it is part of a cell's key."""
        return self.versions.get(library) or version_of(library)

    def shards(self, attacked: Sequence[int] | None = None) -> list[tuple[int, int]]:
        """The (start, stop) of each shard, in order; together they cover all examples.

        A shard goes on until it holds `shard_size` examples that are attacked: a call costs what it
        costs, however few examples are left.

        Args:
            attacked: the examples that a cell attacks, ascending; all where None.
        """
        whole = range(self.n) if attacked is None else attacked
        return list(pairwise([0, *whole[self.shard_size :: self.shard_size], self.n]))

    def made_of(self, blocks: Sequence[tuple[int, int]], attacked: Sequence[int]) -> bool:
        """Whether these can be the shards of a cell that attacked these examples.

        Others may have been attacked beside them, at other epsilons; and on a CPU shards once ended
        at fixed places.
        """
        ends = [0, *(stop for _, stop in blocks)]
        return (
            list(blocks) == list(pairwise(ends))
            and ends[-1] == self.n
            and all(
                sum(start <= i < stop for i in attacked) <= self.shard_size
                for start, stop in blocks
            )
        )

    @property
    def judging(self) -> dict[str, Any]:
        """What decides whether a candidate counts."""
        return {"version": JUDGING_VERSION, "precision": "fp32", "device": self.device_type}


class WhyNot(NamedTuple):
    """Why there is no figure: for code, and for people."""

    cause: Cause
    reason: str


@dataclass(frozen=True)
class Planned:
    """A cell with all that it takes to fill it."""

    cell: Cell
    contender: Contender
    attack: Attack | None
    """None for the clean predictions."""
    key: str = ""
    """Empty where it cannot run, or follows from what others leave."""
    chosen: tuple[int, ...] | None = None
    """The examples to attack, clean errors among them or not; None for what the scope says."""
    inferred: bool = False
    """Whether examples are left out whose outcome follows from another epsilon."""
    beside: Mapping[str, tuple[int, ...]] | None = None
    """Where what survives one epsilon is left out at smaller ones, the examples to attack by exact
    epsilon: this cell's outcomes follow from all of them."""
    why_not: WhyNot | None = None
    """None where it can run."""

    @property
    def epsilon(self) -> Epsilon:
        """The radius; `ZERO` of the clean predictions."""
        return ZERO if self.attack is None else Epsilon.parse(self.cell.epsilon)

    def keyed(self, setting: Setting, attacked: Sequence[int] | None = None) -> Planned:
        """With its key: all right examples are attacked, or just these."""
        return replace(self, key=self._digest(setting, attacked))

    def record(self, status: Status, why: WhyNot | None = None) -> CellRecord:
        """What became of it."""
        return CellRecord(
            **self.cell.model_dump(),
            key=self.key,
            inferred=self.inferred,
            status=status,
            cause=why.cause if why else "",
            reason=why.reason if why else "",
        )

    def _digest(self, setting: Setting, attacked: Sequence[int] | None) -> str:
        """Of all that could change its outcomes."""
        attack, contender = self.attack, self.contender
        content: dict[str, Any] = {
            "defense": {"name": contender.name, **contender.identity},
            "norm": setting.norm.value,
            "epsilon": str(self.epsilon.exact),
            "data": setting.data_digest,
            "seed": setting.seed,
            "shard_size": setting.shard_size,
            "judging": setting.judging,
            "versions": {"torch": setting.version("torch")},
        }
        if attack is not None:
            content["attack"] = {
                "name": attack.name,
                "parameters": attack.parameters,
                "version": attack.version,
            }
            content["versions"] |= {name: setting.version(name) for name in attack.libraries}
            if others := attack.depends():
                content["depends"] = others
            if attack.needs == "source":
                content["source"] = contender.starts[start_of(attack)]
        if attacked is not None:
            content["remaining"] = list(attacked)
        if self.beside is not None:
            content["beside"] = {epsilon: list(some) for epsilon, some in self.beside.items()}
        if self.cell.repeat:
            content["repeat"] = self.cell.repeat
        return digest_of(content)[:32]


def plan(
    contenders: Sequence[Contender], attacks: Sequence[Attack], setting: Setting
) -> list[Planned]:
    """All cells that a user asked for, the clean predictions first; some get their key later."""
    planned = [
        Planned(Cell(defense=c.name, attack=CLEAN, epsilon=ZERO.text), c, None).keyed(setting)
        for c in contenders
    ]
    for contender in contenders:
        for attack in attacks:
            covered = setting.candidates.get(attack.name, range(setting.n))
            # Of a file that holds only some examples there is no row.
            some = tuple(covered) if len(covered) < setting.n else None
            for epsilon in setting.epsilons:
                cell = Cell(
                    attack=attack.name,
                    epsilon=epsilon.text,
                    scope=attack.scope if some is None else "remaining",
                )
                planned.append(plan_cell(cell, contender, attack, setting, some))
    return planned


def plan_cell(
    cell: Cell,
    contender: Contender,
    attack: Attack,
    setting: Setting,
    chosen: tuple[int, ...] | None = None,
) -> Planned:
    """One cell of a contender; with its key, but for scope `remaining`, where what is left decides.

    Args:
        cell: of any defense, or of none yet.
        contender: whom it is for.
        attack: of the cell's name.
        setting: the run's.
        chosen: the examples to attack; None for what the scope says.
    """
    own = cell.model_copy(update={"defense": contender.name})
    why = why_not(contender, attack, setting)
    planned = Planned(own, contender, attack, chosen=chosen, why_not=why)
    if why or cell.scope == "remaining":
        return planned
    return planned.keyed(setting, chosen)


def why_not(contender: Contender, attack: Attack, setting: Setting) -> WhyNot | None:
    """Why an attack cannot run on a defense here, or None."""
    if attack.needs == "surrogates" and contender.load_surrogates is None:
        return WhyNot("inapplicable", "the defense declares no surrogates")
    if attack.needs == "source" and start_of(attack) not in contender.starts:
        name = start_of(attack)
        nothing = "the defense has nothing to transfer from"
        if name == Written.parse(contender.name).name:
            return WhyNot("inapplicable", f"{nothing}: it is the source itself")
        return WhyNot("inapplicable", f"{nothing}: no weights of its {name}")
    if attack.needs == "candidates" and attack.name not in setting.candidates:
        why: str | None = "its file is not here: python -m bench import-adversarial adds one"
    else:
        why = attack.why_not(norm=setting.norm, shape=setting.shape, classes=setting.classes)
    return WhyNot("not-here", why) if why else None


def start_of(attack: Attack) -> str:
    """What a transfer attack starts from, as its parameter says it."""
    return str(attack.parameters.get("source", "twin"))
