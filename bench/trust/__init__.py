"""Is the number right? Outcomes in, evidence and a verdict out; nothing here runs an attack.

A run asks `requests` which cells to measure besides the user's, gathers `evidence_of` its
outcomes, repeats what `pending` names with a fresh seed, lets `escalate` ask for stronger work,
and ends with `verdict` and `attack_marks` (the rule: `docs/verdict.md`).
"""

from bench.trust.behaviour import behaviour
from bench.trust.case import Case
from bench.trust.escalation import escalate
from bench.trust.evidence import Evidence, Request, allowed, pending
from bench.trust.gather import evidence_of
from bench.trust.indicators import indicators
from bench.trust.requests import requests
from bench.trust.sanity import sanity
from bench.trust.twins import Comparison, compare, twin_evidence
from bench.trust.verdict import Verdict, attack_marks, verdict

__all__ = [
    "Case",
    "Comparison",
    "Evidence",
    "Request",
    "Verdict",
    "allowed",
    "attack_marks",
    "behaviour",
    "compare",
    "escalate",
    "evidence_of",
    "indicators",
    "pending",
    "requests",
    "sanity",
    "twin_evidence",
    "verdict",
]
