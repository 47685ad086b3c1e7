"""From what a run is asked to do to what it will do: names, data, weights and cells resolved."""

from __future__ import annotations

import dataclasses
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import registry
from bench.data import default_epsilons, headline, open_dataset
from bench.errors import PluginWarning, UsageError
from bench.matrix.apart import apart, here
from bench.matrix.execute import InProcess, Pool
from bench.matrix.local import LocalHands
from bench.matrix.patience import Patience
from bench.matrix.plan import Setting, plan, start_of
from bench.matrix.processes import COPY, SERVER, begin_server
from bench.matrix.tasks import planned_cost
from bench.matrix.work import Bench
from bench.record.files import digest_of
from bench.record.schema import DatasetRecord, RunRecord, Sweep
from bench.run.config import DEFAULT_N, ESCALATION, usual_shard_size
from bench.run.devices import devices_of, processes, surely_cpu
from bench.run.menu import menu_of
from bench.threat import Epsilon, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from bench.api import Attack, Candidates, Cost, Examples
    from bench.matrix.plan import Planned
    from bench.models.contenders import Contender
    from bench.record.provenance import Surroundings
    from bench.run.config import RunConfig
    from bench.trust import Menu


@dataclass(frozen=True)
class Prepared:
    """A run whose names are resolved, whose data and weights are found, and whose cells are known.

    Nothing has been written yet.
    """

    config: RunConfig
    examples: Examples
    dataset: DatasetRecord
    setting: Setting
    headline: Epsilon
    contenders: list[Contender]
    """What is attacked: the defenses that were asked for, and their controls."""
    attacks: list[Attack]
    device: str
    """That figures are of; of several devices of one kind the first."""
    starts: Sequence[Contender] = ()
    """What transfer attacks start from besides the contenders; nothing attacks them."""
    candidates: Mapping[str, Candidates] = field(default_factory=dict)
    """What files hold, by the attack that stands for the file."""
    variant: int = 0
    """Among runs of models with the same weights that answer differently (`bench.run.identity`)."""
    surroundings: Surroundings | None = None
    """In which its tasks are done; None before any is."""
    further_devices: tuple[str, ...] = ()
    """On which worker processes compute beside it."""
    own: bool = False
    """Whether its module is a program's own, which only a copy of this process has as well."""

    @property
    def id(self) -> str:
        """Digest of weights, data, norm, seed and variant: the same command continues its run."""
        return digest_of(
            {
                "defenses": {c.name: c.identity for c in self.contenders if c.role == "asked"},
                "data": self.setting.data_digest,
                "norm": self.setting.norm.value,
                "seed": self.setting.seed,
                **({"variant": self.variant} if self.variant else {}),
            }
        )[:16]

    @property
    def folder(self) -> Path:
        """Where the run is stored."""
        return self.config.out / self.id

    @property
    def cells(self) -> list[Planned]:
        """All cells asked for, those of scope `remaining` still without their key.

        A control is attacked where its defense is examined, at least at the headline epsilon.
        """
        asked = [c for c in self.contenders if c.role == "asked"]
        controls = [c for c in self.contenders if c.role == "control"]
        beside = dataclasses.replace(self.setting, epsilons=self.examined or (self.headline,))
        return [
            *plan(asked, self.attacks, self.setting),
            *plan(controls, self.attacks, beside),
        ]

    @property
    def examined(self) -> tuple[Epsilon, ...]:
        """The epsilons that evidence is gathered at, ascending."""
        if self.config.examine == "each":
            return tuple(Epsilon.parse_many([*self.setting.epsilons, self.headline]))
        return (self.headline,) if self.config.examine else ()

    @property
    def menu(self) -> Menu:
        """What its examination may ask for."""
        return menu_of(self.setting.norm, self.setting.shape, self.setting.classes)

    @property
    def escalation_budget(self) -> int:
        """Passes that escalation may spend on each defense at an epsilon."""
        given = self.config.escalation_budget
        return ESCALATION * self.setting.n if given is None else given

    @property
    def sweep(self) -> Sweep:
        """How epsilons are gone over."""
        return self.config.sweep if self.config.examine is True else "each"

    @property
    def cost(self) -> Cost:
        """Passes, at most."""
        return planned_cost(self.cells, self.setting)

    @property
    def devices(self) -> tuple[str, ...]:
        """All that compute for it."""
        return (self.device, *self.further_devices)

    @property
    def workers(self) -> int:
        """Processes that do tasks; 0 for this one."""
        return processes(self.config, self.devices)

    @property
    def start(self) -> str:
        """How those start."""
        return COPY if self.own else SERVER

    @property
    def bench(self) -> Bench:
        """What a worker needs."""
        return Bench(
            examples=self.examples,
            contenders={c.name: c for c in (*self.contenders, *self.starts)},
            device=self.device,
            batch_size=self.config.batch_size,
            candidates=self.candidates,
        )

    def executor(self) -> InProcess | Pool:
        """Does tasks in processes of their own, or in this one."""
        if not self.workers:
            return InProcess(self.bench)
        patience = Patience(self.config.timeout)
        if self.config.executor != "local":
            from bench.matrix.cluster import RayHands

            return Pool(RayHands(self.bench, self.config.executor, self.workers), patience)
        places = [self.devices[i % len(self.devices)] for i in range(self.workers)]
        return Pool(LocalHands(self.bench, places, self.start), patience)

    def done_by(self, executor: InProcess | Pool) -> Prepared:
        """The same run with the surroundings in which its tasks were found to be done."""
        return dataclasses.replace(self, surroundings=executor.surroundings)

    def on(self, examples: Examples) -> Prepared:
        """The same run on other examples of the same data set."""
        count, digest = len(examples), examples.digest
        return dataclasses.replace(
            self,
            examples=examples,
            dataset=self.dataset.model_copy(update={"digest": digest, "n": count}),
            setting=dataclasses.replace(self.setting, n=count, data_digest=digest),
        )

    def continuing(self, previous: RunRecord | None) -> Prepared:
        """The same run with shards, the epsilons' spelling and headline of what is stored already.

        Raises:
            UsageError: its shards are of another size than the user asked for.
        """
        if previous is None:
            return self
        size, given = previous.shard_size, self.config.shard_size
        if given not in (None, size):
            raise UsageError(
                f"--shard-size {given}: {self.folder} holds shards of {size} examples, and its "
                "figures depend on them; leave it out, or begin anew with --fresh or another --out"
            )
        stored = Epsilon.parse_many(previous.epsilons)
        spelled = {epsilon: epsilon for epsilon in stored}
        epsilons = tuple(spelled.get(epsilon, epsilon) for epsilon in self.setting.epsilons)
        together = Epsilon.parse_many([*stored, *epsilons])
        return dataclasses.replace(
            self,
            setting=dataclasses.replace(self.setting, epsilons=epsilons, shard_size=size),
            headline=headline(
                self.dataset.family, self.config.norm, together, self.config.headline
            ),
        )


def prepare(
    config: RunConfig,
    attacks: list[Attack] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, of: None,
) -> Prepared:
    """Check everything that can be checked before anything is computed or written.

    Args:
        config: what is asked for.
        attacks: instead of those that the configuration names.
        on_progress: is told how many images of how many are decoded, where there are many.

    Raises:
        UsageError: whatever in the configuration cannot be.
    """
    if not config.defenses:
        raise UsageError("no defense given; name one, such as --defense kwta")
    if attacks is None:
        attacks = registry.create_attacks(config.attacks, config.norm)
    for name in config.defenses:
        registry.defenses.create(name)
    dataset = open_dataset(config.dataset)
    epsilons = _epsilons(config, dataset.family)
    if config.executor == "local" and config.workers != 0 and surely_cpu(config.device):
        begin_server()  # it imports torch beside this process
    devices = devices_of(config)
    apart_from_here = processes(config, devices) > 0
    examples = dataset.choose(
        "test", config.n or DEFAULT_N, fewer=config.n is None, on_progress=on_progress
    )
    starts = [start_of(attack) for attack in attacks if attack.needs == "source"]
    named = [start for start in starts if start != "twin"]
    if apart_from_here:
        limit = Patience(config.timeout).first
        start = COPY if devices[0] == "cpu" else SERVER  # a copy has read the data already
        together = apart(_contenders, config, examples, named, start=start, timeout=limit)
    else:
        together = here(_contenders, config, examples, named)
    return Prepared(
        config=config,
        examples=examples,
        dataset=dataset_record(examples, config.dataset, dataset.family, dataset.notes),
        setting=setting_of(config, examples, epsilons, devices[0]),
        headline=headline(dataset.family, config.norm, epsilons, config.headline),
        contenders=[c for c in together if c.role != "start"],
        attacks=attacks,
        device=devices[0],
        further_devices=devices[1:],
        starts=[c for c in together if c.role == "start"],
    )


def _contenders(
    say: Callable[[str], None], config: RunConfig, examples: Examples, starts: Sequence[str]
) -> list[Contender]:
    """The defenses of a run with what is beside them: every one is made once, for its weights."""
    from bench.models.contenders import Lineup

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PluginWarning)  # said where the names were looked up
        registry.defenses.names()
    controls = _controls(config, starts)
    own = {name: path for name, path in config.checkpoints.items() if name not in controls}
    asked = Lineup(config.dataset, examples, own, config.norm, say).asked(config.defenses)
    lineup = Lineup(config.dataset, examples, config.checkpoints, config.norm, say)
    return lineup.with_controls(asked, starts, twins=config.twins and bool(config.examine))


def _epsilons(config: RunConfig, family: str | None) -> list[Epsilon]:
    """Those given, or else those of the suite, or else the data set's."""
    written = config.epsilons or registry.suite_epsilons(config.attacks, family, config.norm)
    epsilons = Epsilon.parse_many(written) if written else default_epsilons(family, config.norm)[0]
    for epsilon in epsilons:
        ThreatModel(config.norm, epsilon)
    return epsilons


def _controls(config: RunConfig, starts: Sequence[str]) -> set[str]:
    """The twins and starts of the defenses of a run that were not asked for themselves."""
    from bench.models.contenders import start_name

    asked = [registry.defenses.create(name) for name in config.defenses]
    further = {start_name(start, defense.name) for start in starts for defense in asked}
    return ({d.twin for d in asked if d.twin} | further) - {d.name for d in asked}


def setting_of(
    config: RunConfig, examples: Examples, epsilons: Sequence[Epsilon], device: str
) -> Setting:
    """What all cells of a run share."""
    device_type = device.partition(":")[0]
    usual = usual_shard_size(device_type, examples.shape)
    return Setting(
        norm=config.norm,
        epsilons=tuple(epsilons),
        seed=config.seed,
        n=len(examples),
        shape=examples.shape,
        classes=examples.classes,
        data_digest=examples.digest,
        device_type=device_type,
        shard_size=usual if config.shard_size is None else config.shard_size,
    )


def dataset_record(
    examples: Examples, written: str, family: str | None, notes: Sequence[str] = ()
) -> DatasetRecord:
    """For `run.json`.

    Args:
        examples: of the run.
        written: the data set as written; empty where a program passed the examples itself.
        family: of data sets, if any.
        notes: what reading it passed over or chose.
    """
    return DatasetRecord(
        name=examples.name,
        written=written,
        family=family,
        digest=examples.digest,
        n=len(examples),
        shape=examples.shape,
        class_names=examples.class_names,
        notes=tuple(notes),
    )
