"""All evidence of one defense."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.trust.behaviour import behaviour
from bench.trust.indicators import indicators
from bench.trust.sanity import sanity
from bench.trust.twins import twin_evidence

if TYPE_CHECKING:
    from bench.trust.case import Case
    from bench.trust.evidence import Evidence


def evidence_of(case: Case) -> list[Evidence]:
    """Every item, those that could not run included: sanity tests, indicators, behaviour, twin."""
    return [*sanity(case), *indicators(case), *behaviour(case), twin_evidence(case)]
