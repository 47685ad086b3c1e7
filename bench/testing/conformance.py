"""Does a plugin keep to what `bench.api` says? One list of checks, for pytest and `check` alike.

Checks run on small inputs and untrained weights: they say whether a figure can be trusted to be
the plugin's, and nothing about how robust a defense or how strong an attack is.

Whether the models that a scheme offers can be built here, without their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from bench import registry
from bench.errors import WinnowError
from bench.registry.grammar import Written, parameters_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.api import Offer, Plugin
    from bench.registry.plugins import Registry

S = TypeVar("S")


Status = Literal["passed", "failed", "skipped"]


class NotApplicableError(WinnowError):
    """A check has nothing to look at; the message says why."""


@dataclass(frozen=True)
class Check(Generic[S]):
    """One rule that a plugin has to keep."""

    id: str
    """Words joined by hyphens."""
    expected: str
    """What has to hold, in one sentence."""
    mend: str
    """What to do where it does not."""
    look: Callable[[S], str | None]
    """What is seen where it does not hold, else None.

    Raises:
        NotApplicableError: there is nothing to look at.
    """

    def on(self, subject: S) -> Finding:
        """Look at a plugin. Whatever it raises is a failure."""
        try:
            seen = self.look(subject)
        except NotApplicableError as reason:
            return Finding(self, "skipped", str(reason))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            seen = f"it raised {type(error).__name__}: {' '.join(str(error).split())}"
        return Finding(self, "failed", seen) if seen else Finding(self, "passed")


@dataclass(frozen=True)
class Finding:
    """What came of one check."""

    check: Check[Any]
    status: Status
    seen: str = ""
    """Of a failure what was seen, of a skipped check why; else empty."""

    def __str__(self) -> str:
        """As lines for a reader."""
        if self.status == "failed":
            return (
                f"{self.check.id}\n    expected: {self.check.expected}\n"
                f"    seen:     {self.seen}\n    to mend:  {self.check.mend}"
            )
        return f"{self.check.id}: {self.seen}" if self.seen else self.check.id


def checks_of(kind: str) -> tuple[Check[Any], ...]:
    """The checks of a kind of plugin, `defense` or `attack`."""
    if kind == "defense":
        from bench.testing.defense_rules import CHECKS as DEFENSE_CHECKS

        return DEFENSE_CHECKS
    from bench.testing.attack_rules import CHECKS as ATTACK_CHECKS

    return ATTACK_CHECKS


def subject_of(kind: str, name: str) -> Any:
    """What the checks of a kind look at.

    Raises:
        UsageError: there is no such plugin, or it does not take these options.
    """
    if kind == "defense":
        from bench.testing.defense_subject import DefenseSubject

        return DefenseSubject(name)
    from bench.testing.attack_subject import AttackSubject

    return AttackSubject(name)


def examine(kind: str, name: str) -> list[Finding]:
    """Check one plugin.

    Args:
        kind: `defense` or `attack`.
        name: as written, with options if wanted.

    Returns:
        A finding for each check. Where every one was skipped, one more that failed: nothing was
        shown.

    Raises:
        UsageError: there is no such plugin, or it does not take these options.
    """
    subject = subject_of(kind, name)
    findings = [check.on(subject) for check in checks_of(kind)]
    return findings + nothing_shown(findings)


def nothing_shown(findings: Sequence[Finding]) -> list[Finding]:
    """A failure where every check was skipped; else nothing."""
    if any(finding.status != "skipped" for finding in findings):
        return []
    check: Check[Any] = Check(
        "anything", "At least one check can look at the plugin",
        "make it build, or run, on one of the shapes that the checks use", lambda subject: None,
    )  # fmt: skip
    return [Finding(check, "failed", "every check was skipped, so that nothing is shown")]


def read_back(registry: Registry[Any], plugin: Plugin) -> str | None:
    """Why a plugin's names do not lead back to it: its canonical one, and its defaults written out.

    Args:
        registry: of its kind.
        plugin: made by the registry.
    """
    again = registry.create(plugin.name)
    if (again.name, again.parameters) != (plugin.name, plugin.parameters):
        return f"{plugin.name!r} is read back as {again.name!r}, with {again.parameters}"
    bare = Written.parse(plugin.name).name
    for key, parameter in parameters_of(type(plugin)).items():
        if parameter.default == "":
            continue
        written = f"{bare}[{key}={parameter.write(parameter.default)}]"
        if (found := registry.create(written).name) != bare:
            return f"{written!r}, its default written out, is read as {found!r}"
    return None


def build_fault(offer: Offer, *, on_cpu: bool = True) -> str | None:
    """Why a model cannot be built, in one line; None where it can.

    It is built on torch's meta device, where tensors have shapes and no numbers, which takes
    neither time nor memory.

    Args:
        offer: the model.
        on_cpu: whether to try again on the CPU what needs numbers to be built.
    """
    import torch

    fault = None
    for device in ("meta", "cpu") if on_cpu else ("meta",):
        defense = registry.defenses.create(offer.name)
        try:
            with torch.device(device):
                defense.build(
                    network=defense.network(shape=offer.shape),
                    shape=offer.shape,
                    classes=offer.classes,
                )
        except WinnowError as error:
            fault = str(error)
        except Exception as error:  # noqa: BLE001 - a library may raise anything
            first = next(iter(str(error).strip().splitlines()), "")
            fault = f"{type(error).__name__}: {first}"
        else:
            return None
    return fault
