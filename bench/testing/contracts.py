"""The checks as pytest classes, for the tests of plugins. Importing this imports pytest and torch.

from bench.testing import DefenseContract

class TestMyDefense(DefenseContract):
name = "my-defense"
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from bench.testing.conformance import Check, Finding, checks_of, nothing_shown, subject_of


class _Contract:
    """What both contracts share."""

    name: ClassVar[str]
    """The plugin, as written; options may be given."""
    kind: ClassVar[str]
    _subjects: ClassVar[dict[type, Any]] = {}
    _findings: ClassVar[dict[tuple[type, str], Finding]] = {}

    @pytest.fixture
    def subject(self, request: pytest.FixtureRequest) -> Any:
        """What the checks look at; one for all of them."""
        if not hasattr(request.cls, "name"):
            pytest.fail(f'{request.cls.__name__} needs `name = "…"`, the plugin\'s', pytrace=False)
        if request.cls not in self._subjects:
            self._subjects[request.cls] = subject_of(self.kind, request.cls.name)
        return self._subjects[request.cls]

    def _finding(self, check: Check[Any], subject: Any) -> Finding:
        key = (type(self), check.id)
        if key not in self._findings:
            self._findings[key] = check.on(subject)
        return self._findings[key]

    def test_not_everything_is_skipped(self, subject: Any) -> None:
        """Otherwise nothing is shown."""
        findings = [self._finding(check, subject) for check in checks_of(self.kind)]
        for failure in nothing_shown(findings):
            pytest.fail(str(failure), pytrace=False)

    def _hold(self, check: Check[Any], subject: Any) -> None:
        finding = self._finding(check, subject)
        if finding.status == "skipped":
            pytest.skip(finding.seen)
        if finding.status == "failed":
            pytest.fail(str(finding), pytrace=False)


class DefenseContract(_Contract):
    """What a defense has to keep."""

    kind = "defense"

    @pytest.mark.parametrize("check", checks_of("defense"), ids=lambda check: check.id)
    def test_contract(self, check: Check[Any], subject: Any) -> None:
        """One rule of `bench.testing.defense_rules`."""
        self._hold(check, subject)


class AttackContract(_Contract):
    """What an attack has to keep."""

    kind = "attack"

    @pytest.mark.parametrize("check", checks_of("attack"), ids=lambda check: check.id)
    def test_contract(self, check: Check[Any], subject: Any) -> None:
        """One rule of `bench.testing.attack_rules`."""
        self._hold(check, subject)
