"""Does a plugin keep to what `bench.api` says? One list of rules, for pytest and `check` alike.

Rules look at small inputs and untrained weights: they say whether a figure can be trusted to be
the plugin's, and nothing about how robust a defense or how strong an attack is.

Whether the models that a scheme offers can be built here, without their weights.
"""

from __future__ import annotations

import importlib
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


class NotApplicableError(WinnowError):
    """A rule has nothing to look at; the message says why."""


@dataclass(frozen=True)
class Rule(Generic[S]):
    """What a plugin has to keep."""

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

    def on(self, subject: S) -> RuleResult:
        """Look at a plugin. Whatever it raises is a failure."""
        try:
            seen = self.look(subject)
        except NotApplicableError as reason:
            return RuleResult(self, "skipped", str(reason))
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            seen = f"it raised {type(error).__name__}: {' '.join(str(error).split())}"
        return RuleResult(self, "failed", seen) if seen else RuleResult(self, "passed")


@dataclass(frozen=True)
class RuleResult:
    """What came of one rule."""

    rule: Rule[Any]
    status: Literal["passed", "failed", "skipped"]
    seen: str = ""
    """Of a failure what was seen, of a skipped rule why; else empty."""

    def __str__(self) -> str:
        """As lines for a reader."""
        if self.status == "failed":
            return (
                f"{self.rule.id}\n    expected: {self.rule.expected}\n"
                f"    seen:     {self.seen}\n    to mend:  {self.rule.mend}"
            )
        return f"{self.rule.id}: {self.seen}" if self.seen else self.rule.id


def examine(noun: str, name: str, device: str = "cpu") -> list[RuleResult]:
    """Look at one plugin by every rule.

    Args:
        noun: `defense` or `attack`.
        name: as written, with options if wanted.
        device: where the models are asked: `cpu`, `cuda:0`.

    Returns:
        A result for each rule. Where every one was skipped, one more that failed: nothing was
        shown.

    Raises:
        UsageError: there is no such plugin, or it does not take these options.
    """
    subject = subject_of(noun, name, device)
    results = [rule.on(subject) for rule in rules_of(noun)]
    return results + nothing_shown(results)


def rules_of(noun: str) -> tuple[Rule[Any], ...]:
    """The rules of every `defense`, or of every `attack`: found by name, since they import this."""
    rules: tuple[Rule[Any], ...] = importlib.import_module(f"bench.testing.{noun}_rules").RULES
    return rules


def subject_of(noun: str, name: str, device: str = "cpu") -> Any:
    """What the rules look at.

    Raises:
        UsageError: there is no such plugin, or it does not take these options.
    """
    module = importlib.import_module(f"bench.testing.{noun}_subject")
    return getattr(module, f"{noun.title()}Subject")(name, device)


def nothing_shown(results: Sequence[RuleResult]) -> list[RuleResult]:
    """A failure where every rule was skipped; else nothing."""
    if any(result.status != "skipped" for result in results):
        return []
    rule: Rule[Any] = Rule(
        "anything", "At least one check can look at the plugin",
        "make it build, or run, on one of the shapes that the checks use", lambda subject: None,
    )  # fmt: skip
    return [RuleResult(rule, "failed", "every check was skipped, so that nothing is shown")]


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
