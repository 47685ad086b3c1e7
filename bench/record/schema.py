"""`run.json`: what a run was asked, what it ran on, where its cells are, what its attacks are.

Readers ignore keys that they do not know, so that a newer writer does not break an older reader;
what older writers wrote is read by the validators here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, model_validator

from bench.api.attacks import Approach, Loss, Strength  # noqa: TC001 - pydantic reads them
from bench.errors import StoreError, UsageError
from bench.record.files import ANEW, digest_of
from bench.threat import Epsilon, Norm

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from bench.api import Attack

SCHEMA_VERSION = 1
#: The attack that is none: the predictions on unperturbed inputs, stored at epsilon 0.
CLEAN = "clean"
#: The scheme of attacks that stand for files of adversarial examples from elsewhere.
EXTERNAL = "external:"

#: Names of folders from files never become paths unchecked.
FolderName = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{0,64}$")]

Status = Literal["ok", "failed", "skipped", "incomplete"]
Scope = Literal["all", "remaining", "evidence", "check"]
"""`check`: what a sweep inferred of a cell of scope `remaining`, attacked after all."""
Sweep = Literal["each", "bracket"]
Cause = Literal[
    "",
    "inapplicable",
    "not-here",
    "no-clean",
    "not-finite",
    "out-of-memory",
    "raised",
    "died",
    "timeout",
    "budget",
    "escalation-budget",
]
"""Why a cell has no figure: the defense lacks what the attack needs; the attack cannot run in this
setting or on this machine; there are no clean predictions; the model answered NaN or infinity;
memory ended; something raised; its process died each time; it took too long (`--timeout`);
`--budget`; `--escalation-budget`. Empty where there is a figure."""


class Record(BaseModel):
    """A frozen part of a file that is read back."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Place(NamedTuple):
    """Where a cell stands among those of its run."""

    defense: str
    attack: str
    epsilon: str
    repeat: int


class Cell(Record):
    """One defense × one attack × one threat model: what plan, store, examination and tables mean.

    Its attack is known by its canonical name and its epsilon as written.
    """

    defense: str = ""
    """Canonical; empty where whoever asks for the cell fills it in."""
    attack: str
    """Canonical; `CLEAN` for the unperturbed inputs."""
    epsilon: str
    """As written; `0` for the clean predictions."""
    scope: Scope = "all"
    repeat: int = 0
    """Another number is another seed, with everything else alike."""
    round: int = 0
    """Of the escalation that asked for it; 0 where the user or the examination did."""

    @property
    def place(self) -> Place:
        """What no two cells of a run share."""
        return Place(self.defense, self.attack, self.epsilon, self.repeat)

    @property
    def label(self) -> str:
        """The attack with its repeat, as progress, seeds and the origin of examples name it."""
        return f"{self.attack}#{self.repeat}" if self.repeat else self.attack


class CellRecord(Cell):
    """A cell and what became of it: where its outcomes are, or why there are none."""

    key: FolderName
    """Its folder under `cells/`; empty where it was skipped."""
    inferred: bool = False
    """Whether examples were left out whose outcome follows from another epsilon."""
    status: Status = "incomplete"
    cause: Cause = ""
    """Why it has no figure, for code."""
    reason: str = ""
    """Why it has no figure, for people; nothing is decided by it."""

    @model_validator(mode="before")
    @classmethod
    def _from_older(cls, content: Any) -> Any:
        """Read what wrote a repeat into the name, `source` for `inferred`, and no cause."""
        if not isinstance(content, dict) or "cause" in content:
            return content
        attack, _, repeat = str(content.get("attack", "")).partition("#")
        return {
            **content,
            "attack": attack,
            "repeat": int(repeat) if repeat.isdecimal() else content.get("repeat", 0),
            "inferred": content.get("source") == "inferred" or content.get("inferred", False),
            "cause": older_cause(str(content.get("status", "")), str(content.get("reason", ""))),
        }


def older_cause(status: str, reason: str) -> Cause:
    """The cause that files without one told in words alone."""
    if status == "skipped":
        if reason.startswith("escalation would need"):
            return "escalation-budget"
        return "inapplicable" if reason.startswith("the defense ") else "not-here"
    if status == "failed":
        if "nan or infinity" in reason.lower():
            return "not-finite"
        return "no-clean" if reason.startswith("no clean predictions") else "raised"
    return "budget" if status == "incomplete" and reason else ""


class AttackRecord(Record):
    """What an attack declared when the run was made: the examination reads this, not the plugin."""

    name: str = ""
    """The plugin's, without options."""
    approach: Approach = "mixed"
    lowers: Loss = "other"
    strength: Strength = "ordinary"
    over_draws: bool = False
    deterministic: bool = False
    traces: tuple[str, ...] = ()
    challenge: str = ""
    spoken: str = ""
    """As a sentence calls it; its canonical name where empty."""
    examined: bool = False
    """Whether it declares what of it an examination runs."""
    parameters: dict[str, bool | int | float | str] = {}
    """All of them, defaults included."""

    @classmethod
    def of(cls, attack: Attack) -> Self:
        """What a plugin declares."""
        return cls(
            name=attack.name.partition("[")[0],
            approach=attack.goes_by(),
            lowers=attack.lowers,
            strength=attack.strength,
            over_draws=attack.over_draws,
            deterministic=attack.deterministic,
            traces=attack.traces,
            challenge=attack.challenge,
            spoken=attack.spoken,
            examined=bool(attack.examination),
            parameters=attack.parameters,
        )


class DefenseRecord(Record):
    """One defense of a run."""

    key: FolderName
    """Its folder under `adversarial/`."""
    network: str
    weights_digest: str
    checkpoint: str
    """The file's name, or a sentence on where the weights came from."""
    dtype: str = "float32"
    """Of its weights: inputs are cast to it where it takes nothing else, and logits to float32."""
    twin: str | None = None
    control: bool = False
    """Here as somebody's twin, where that is examined alone, without being asked for."""
    published: dict[str, Any] | None = None
    """What others published of it for this data and norm: `bench.api.Published`."""
    examined: dict[str, str] = {}
    """Where it was examined, as written, and the digest of the outcomes that this was about
    (`RunRecord.outcomes`). Of other outcomes it says nothing."""


class DatasetRecord(Record):
    """The examples of a run."""

    name: str
    """As in tables."""
    written: str = Field(
        validation_alias=AliasChoices("source", "written"), serialization_alias="source"
    )
    """The data set as written; empty where a program passed the examples itself."""
    family: str | None
    digest: str
    n: int = Field(ge=1)
    shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """What reading the files passed over or chose, a sentence each."""


class RunRecord(Record):
    """The whole of `run.json`."""

    schema_version: int = SCHEMA_VERSION
    id: str
    status: Literal["running", "complete", "interrupted", "failed"]
    dataset: DatasetRecord
    norm: str
    seed: int
    variant: int = 0
    """Among runs of models with the same weights that answer differently."""
    epsilons: list[str]
    """As written, ascending."""
    headline: str
    shard_size: int = Field(ge=1)
    judging: dict[str, Any]
    """What decides whether a candidate counts: version, precision, kind of device."""
    defenses: dict[str, DefenseRecord]
    cells: list[CellRecord]
    replaced: list[CellRecord] = []
    """Cells whose place others took, and those of commands that were killed: what they broke counts
    in the worst case, and nothing else of them does."""
    attacks: dict[str, AttackRecord] = Field(default_factory=dict)
    """What its attacks declared, and those that the examination could have asked for."""
    provenance: dict[str, Any]
    suites: dict[str, list[str]] = {}
    """Suites all of whose attacks are in the run, with their attacks; `all` is none."""
    figures: dict[str, str] = {}
    """Of suites and attacks in the run, the published evaluation whose figure they give."""
    sweep: Sweep = "each"
    """How its commands went over their epsilons: `bracket` where any of them did."""
    run_budget: int | None = Field(
        None, validation_alias=AliasChoices("limit", "run_budget"), serialization_alias="limit"
    )
    """Passes that the last command could spend in all; None for as many as it took."""
    escalation_budget: int | None = Field(
        None,
        validation_alias=AliasChoices("escalation_budget", "budget"),
        serialization_alias="budget",
    )
    """Passes that escalation may spend on each defense; None where it was left out."""
    question: str = ""
    """Digest of the last command and of all that its answer follows from (`bench.run.again`); empty
    where that cannot be said, or the command did not get its whole answer."""

    @classmethod
    def read(cls, content: Any, where: str) -> RunRecord:
        """Check what was read from a file.

        Raises:
            StoreError: of another schema, or damaged.
        """
        try:
            record = cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            why = f"{place}: {first['msg']}"
            raise StoreError(f"{where} is not a run record: {why}; {ANEW}") from None
        except (RecursionError, OverflowError) as error:
            raise StoreError(f"{where} is not a run record: {error}; {ANEW}") from None
        if record.schema_version != SCHEMA_VERSION:
            raise StoreError(
                f"{where} has schema version {record.schema_version}; this Winnow reads "
                f"{SCHEMA_VERSION}"
            )
        if why := record._contradiction():
            raise StoreError(f"{where} is not a run record: {why}; {ANEW}")
        older = isinstance(content, dict) and content.get("examined") is True
        return record._examined_once() if older else record

    def _contradiction(self) -> str:
        """What in it cannot be, whatever was run; empty where nothing is."""
        if self.norm not in [norm.value for norm in Norm]:
            return f"norm: {self.norm!r} is none of {', '.join(Norm)}"
        written = {"version": int, "precision": str, "device": str}
        for key, kind in written.items():
            if type(self.judging.get(key)) is not kind:
                return f"judging.{key}: it has to be there, of type {kind.__name__}"
        try:
            radii = [epsilon.text for epsilon in Epsilon.parse_many(self.epsilons)]
            for cell in (*self.cells, *self.replaced):
                if cell.attack != CLEAN or cell.epsilon != "0":
                    Epsilon.parse(cell.epsilon)
        except UsageError as error:
            return f"epsilons: {error}"
        if radii != self.epsilons or self.headline not in radii:
            return (
                f"epsilons: they have to ascend, each once, the headline {self.headline!r} among "
                f"them (got {', '.join(self.epsilons)})"
            )
        strangers = sorted({cell.defense for cell in self.cells} - self.defenses.keys())
        return f"cells: defense {strangers[0]!r} is not among the defenses" if strangers else ""

    def outcomes(self, defense: str) -> str:
        """Digest of the cells of a defense, but for adversarial examples from elsewhere.

        Those add no evidence: with them the same evidence is weighed again.
        """
        return digest_of(
            sorted(
                (cell.label, cell.epsilon, cell.scope, cell.round, cell.key, cell.status)
                for cell in self.cells
                if cell.defense == defense
                and cell.status != "skipped"
                and not cell.attack.startswith(EXTERNAL)
            )
        )

    def examined(self, defense: str) -> list[str]:
        """The epsilons at which its outcomes as they are now were examined, ascending."""
        about, now = self.defenses[defense].examined, self.outcomes(defense)
        return [epsilon for epsilon in self.epsilons if about.get(epsilon) == now]

    def with_examined(self, defenses: Iterable[str], epsilons: Collection[str]) -> RunRecord:
        """The record after an examination at these epsilons; earlier ones stay, as they were."""
        found = dict(self.defenses)
        for name in defenses:
            now = found[name].examined | dict.fromkeys(epsilons, self.outcomes(name))
            found[name] = found[name].model_copy(update={"examined": dict(sorted(now.items()))})
        return self.model_copy(update={"defenses": found})

    def _examined_once(self) -> RunRecord:
        """As read from older files, which say only that there was some examination.

        It was at the headline epsilon, if what measures a defense ran there.
        """
        measured = {
            cell.defense
            for cell in self.cells
            if (cell.epsilon, cell.scope, cell.status) == (self.headline, "evidence", "ok")
        }
        return self.with_examined(sorted(measured & self.defenses.keys()), [self.headline])
