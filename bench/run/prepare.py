"""`RunConfig`: what a run is asked to do.

From what a run is asked to do to what it will do: names, data, weights and cells resolved.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from bench import registry
from bench.data import default_epsilons, headline, open_dataset, subset
from bench.errors import UsageError
from bench.matrix.execute import InProcess, Workers
from bench.matrix.plan import Setting, plan, start_of
from bench.matrix.tasks import planned_cost
from bench.matrix.work import Bench
from bench.record.files import digest_of
from bench.record.schema import DatasetRecord, RunRecord
from bench.run.menu import menu_of
from bench.threat import Epsilon, Norm, ThreatModel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.api import Attack, Candidates, Cost, Examples
    from bench.matrix.plan import Planned
    from bench.models.contenders import Contender
    from bench.record.schema import Sweep
    from bench.trust import Menu

#: How many examples a run takes where nothing is said.
DEFAULT_N = 100


#: Examples of a shard where nothing is said: on the CPU, where they are shared by workers, and on
#: a GPU, which smaller batches leave idle. A network that does not fit gets them in parts.
SHARD_SIZE, GPU_SHARD_SIZE = 50, 500


#: Passes per example that escalation may spend on a defense where nothing is said.
ESCALATION = 15_000


@dataclass(frozen=True)
class RunConfig:
    """What a run is asked to do, as the command line or a program says it.

    Raises:
        UsageError: a number of something is below 1.
    """

    defenses: tuple[str, ...]
    attacks: str = "standard"
    """Attack and suite names, separated by commas."""
    dataset: str = "digits"
    norm: Norm = Norm.LINF
    epsilons: tuple[str, ...] = ()
    """As written; where empty the suite's, if `attacks` is one that has some, or the data set's."""
    n: int | None = None
    """`DEFAULT_N`, or all there are of fewer, where None."""
    seed: int = 0
    device: str = "auto"
    batch_size: int | None = None
    """Of one forward pass; results do not depend on it."""
    shard_size: int | None = None
    """Part of every cell's key: attacks draw random numbers for the whole shard. `SHARD_SIZE` or
    `GPU_SHARD_SIZE` where None."""
    workers: int | None = None
    checkpoints: Mapping[str, Path] = field(default_factory=dict)
    out: Path = Path("results/runs")
    fresh: bool = False
    twins: bool = True
    """Whether each defense's twin is evaluated beside it, where the defense is examined."""
    headline: str = ""
    """The epsilon that ranks and is examined, as written, one of the run's; where empty the data
    set's usual one if it is among them, else the largest."""
    examine: bool | Literal["each"] = True
    """Whether each defense is examined as well as attacked: at the headline epsilon, or at `each`
    one, with a verdict of its own."""
    escalate: bool = True
    """Whether failed evidence asks for stronger attacks."""
    budget: int | None = None
    """Passes that the run may spend; what does not fit stays incomplete."""
    escalation_budget: int | None = None
    """Passes that escalation may spend on each defense at an epsilon; `ESCALATION` per example
    where None."""
    sweep: Sweep = "bracket"
    """How epsilons are gone over (`bench.matrix.schedule`); `each` where nothing is examined, since
    what a sweep infers could not be trusted, and where every epsilon is, since evidence needs whole
    rows."""
    command: str = ""

    def __post_init__(self) -> None:
        for name, value in (
            ("n", self.n),
            ("batch-size", self.batch_size),
            ("shard-size", self.shard_size),
            ("workers", self.workers),
            ("budget", self.budget),
        ):
            if value is not None and value < 1:
                raise UsageError(f"--{name} has to be at least 1 (got {value})")
        if not isinstance(self.examine, bool) and self.examine != "each":
            raise UsageError(f"examine has to be True, False or 'each' (got {self.examine!r})")


#: Worker processes where nothing is said, at most: each holds about 1 GB.
MAX_WORKERS = 8


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
    starts: Sequence[Contender] = ()
    """What transfer attacks start from besides the contenders; nothing attacks them."""
    candidates: Mapping[str, Candidates] = field(default_factory=dict)
    """What files hold, by the attack that stands for the file."""

    @property
    def id(self) -> str:
        """Digest of weights, data, norm and seed: the same command continues its run."""
        return digest_of(
            {
                "defenses": {c.name: c.identity for c in self.contenders if c.role == "asked"},
                "data": self.setting.data_digest,
                "norm": self.setting.norm.value,
                "seed": self.setting.seed,
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
    def workers(self) -> int:
        """Processes that do tasks."""
        cores = min(len(os.sched_getaffinity(0)), MAX_WORKERS)
        return self.config.workers or (cores if self.device == "cpu" else 1)

    def executor(self) -> InProcess | Workers:
        """Worker processes on the CPU; this process on a GPU, which one process keeps busy."""
        bench = Bench(
            examples=self.examples,
            contenders={c.name: c for c in (*self.contenders, *self.starts)},
            device=self.device,
            batch_size=self.config.batch_size,
            candidates=self.candidates,
        )
        return InProcess(bench) if self.workers == 1 else Workers(bench, self.workers)

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
        """The same run with the epsilons' spelling, and the headline, of what is stored already."""
        if previous is None:
            return self
        stored = Epsilon.parse_many(previous.epsilons)
        spelled = {epsilon: epsilon for epsilon in stored}
        epsilons = tuple(spelled.get(epsilon, epsilon) for epsilon in self.setting.epsilons)
        together = Epsilon.parse_many([*stored, *epsilons])
        return dataclasses.replace(
            self,
            setting=dataclasses.replace(self.setting, epsilons=epsilons),
            headline=headline(
                self.dataset.family, self.config.norm, together, self.config.headline
            ),
        )


def resolve_device(text: str) -> str:
    """`auto`, `cpu`, `cuda` or `cuda:1` to a device that is there.

    Raises:
        UsageError: not a device, or not on this machine.
    """
    import torch

    if text == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if text == "cpu":
        return text
    kind, _, index = text.partition(":")
    if kind != "cuda" or not (index.isdecimal() or index == ""):
        raise UsageError(f"unknown device {text!r}; allowed: auto, cpu, cuda, cuda:0, cuda:1, …")
    count = torch.cuda.device_count()
    if int(index or 0) >= count:
        raise UsageError(f"no device {text!r} here: this machine has {count} CUDA device(s)")
    return f"cuda:{index or 0}"


def prepare(config: RunConfig, attacks: list[Attack] | None = None) -> Prepared:
    """Check everything that can be checked before anything is computed or written.

    Args:
        config: what is asked for.
        attacks: instead of those that the configuration names.

    Raises:
        UsageError: whatever in the configuration cannot be.
    """
    from bench.models.contenders import Lineup

    if not config.defenses:
        raise UsageError("no defense given; name one, such as --defense kwta")
    if attacks is None:
        attacks = registry.create_attacks(config.attacks, config.norm)
    for name in config.defenses:
        registry.defenses.create(name)
    dataset = open_dataset(config.dataset)
    epsilons = _epsilons(config, dataset.family)
    device = resolve_device(config.device)
    examples = dataset.load("test")
    examples = subset(examples, config.n or min(DEFAULT_N, len(examples)))
    starts = [start_of(attack) for attack in attacks if attack.needs == "source"]
    named = [start for start in starts if start != "twin"]
    controls = _controls(config, named)
    own = {name: path for name, path in config.checkpoints.items() if name not in controls}
    asked = Lineup(config.dataset, examples, own, config.norm).asked(config.defenses)
    lineup = Lineup(config.dataset, examples, config.checkpoints, config.norm)
    together = lineup.with_controls(asked, named, twins=config.twins and bool(config.examine))
    return Prepared(
        config=config,
        examples=examples,
        dataset=dataset_record(examples, config.dataset, dataset.family),
        setting=setting_of(config, examples, epsilons, device),
        headline=headline(dataset.family, config.norm, epsilons, config.headline),
        contenders=[c for c in together if c.role != "start"],
        attacks=attacks,
        device=device,
        starts=[c for c in together if c.role == "start"],
    )


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
    usual = SHARD_SIZE if device_type == "cpu" else GPU_SHARD_SIZE
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


def dataset_record(examples: Examples, written: str, family: str | None) -> DatasetRecord:
    """For `run.json`.

    Args:
        examples: of the run.
        written: the data set as written; empty where a program passed the examples itself.
        family: of data sets, if any.
    """
    return DatasetRecord(
        name=examples.name,
        written=written,
        family=family,
        digest=examples.digest,
        n=len(examples),
        shape=examples.shape,
        class_names=examples.class_names,
    )
