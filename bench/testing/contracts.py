"""The rules as pytest classes, for the tests of plugins. Importing this imports pytest and torch.

from bench.testing import DefenseContract

class TestMyDefense(DefenseContract):
    name = "my-defense"
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from bench.testing.conformance import Rule, RuleResult, nothing_shown, rules_of, subject_of


class _Contract:
    """What both contracts share."""

    name: ClassVar[str]
    """The plugin, as written; options may be given."""
    noun: ClassVar[str]
    _subjects: ClassVar[dict[type, Any]] = {}
    _results: ClassVar[dict[tuple[type, str], RuleResult]] = {}

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Any:
        """What the rules look at; one for all of them."""
        if not hasattr(request.cls, "name"):
            pytest.fail(f'{request.cls.__name__} needs `name = "…"`, the plugin\'s', pytrace=False)
        if request.cls not in self._subjects:
            self._subjects[request.cls] = subject_of(self.noun, request.cls.name)
        return self._subjects[request.cls]

    def _result(self, rule: Rule[Any], subject: Any) -> RuleResult:
        key = (type(self), rule.id)
        if key not in self._results:
            self._results[key] = rule.on(subject)
        return self._results[key]

    def test_not_everything_is_skipped(self, subject: Any) -> None:
        """Otherwise nothing is shown."""
        results = [self._result(rule, subject) for rule in rules_of(self.noun)]
        for failure in nothing_shown(results):
            pytest.fail(str(failure), pytrace=False)

    def _hold(self, rule: Rule[Any], subject: Any) -> None:
        result = self._result(rule, subject)
        if result.status == "skipped":
            pytest.skip(result.seen)
        if result.status == "failed":
            pytest.fail(str(result), pytrace=False)


class DefenseContract(_Contract):
    """What a defense has to keep."""

    noun = "defense"

    @pytest.mark.parametrize("rule", rules_of("defense"), ids=lambda rule: rule.id)
    def test_contract(self, rule: Rule[Any], subject: Any) -> None:
        """One rule of `bench.testing.defense_rules`."""
        self._hold(rule, subject)


class AttackContract(_Contract):
    """What an attack has to keep."""

    noun = "attack"

    @pytest.mark.parametrize("rule", rules_of("attack"), ids=lambda rule: rule.id)
    def test_contract(self, rule: Rule[Any], subject: Any) -> None:
        """One rule of `bench.testing.attack_rules`."""
        self._hold(rule, subject)
