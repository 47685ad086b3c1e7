"""Summaries of older versions, as this one reads them."""

from __future__ import annotations

import copy
from typing import Any

from bench.record.schema import older_cause
from bench.record.summary import EXAMINATION, NOT_EXAMINED

#: Which suite and which attack gave AutoAttack's figure, where files do not say.
OLDER_FIGURES = {"standard": "autoattack", "autoattack": "autoattack"}
#: How older versions ended the sentence about a figure at chance.
_GONE = "it is broken."
#: How the sentence of a measurement begins that was not made at the headline epsilon.
_NOTHING_MEASURED = "Not run: nothing measured it"


def upgraded(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary as this version reads it: what older ones told in words alone is filled in."""
    found = copy.deepcopy(summary)
    for part in (*found["defenses"].values(), *found.get("controls", {}).values()):
        _rename_verdicts(part, found["headline"])
    if "figures" in summary:
        return found
    found["figures"] = OLDER_FIGURES
    for part in (*found["defenses"].values(), *found.get("controls", {}).values()):
        for status in ("failed", "skipped"):
            for item in part.get(status, []):
                item.setdefault("cause", older_cause(status, item["reason"]))
        for cells in part["attacks"].values():
            for cell in cells.values():
                cell.setdefault("cause", older_cause(cell["status"], cell.get("reason", "")))
        for suite in part.get("suites", {}).values():
            for together in suite.values():  # AutoAttack's standard version has four attacks
                together.setdefault("whole", len(together["attacks"]) == 4)
    return found


def _rename_verdicts(part: dict[str, Any], headline: str) -> None:
    """What older ones called credible at chance, and copied to epsilons that nobody examined."""
    if "examinations" in part:
        return
    part["examinations"] = {}
    if _measured_elsewhere(part):
        for key in EXAMINATION:
            part.pop(key, None)
        for worst in part["worst_case"].values():
            worst["verdict"] = NOT_EXAMINED
    ruling = part.get("verdict")
    if ruling is None:
        return
    if ruling["level"] == "credible" and ruling["reasons"][0].endswith(_GONE):
        ruling["level"] = "broken"
        ruling["reasons"] = [
            text.replace(_GONE, "the claim is gone.") for text in ruling["reasons"]
        ]
    for epsilon, worst in part["worst_case"].items():
        if epsilon == headline:
            worst["verdict"] = ruling["level"]
        elif worst.get("verdict") not in (None, "broken"):
            # They copied the headline's but for figures at chance.
            doubted = ruling["level"] in ("suspect", "unreliable")
            alone = doubted and worst["verdict"] == "credible"
            worst["verdict"] = "broken" if alone else NOT_EXAMINED


def _measured_elsewhere(part: dict[str, Any]) -> bool:
    """Whether an older one called credible what it had examined at another epsilon alone."""
    credible = (part.get("verdict") or {}).get("level") == "credible"
    gradients = [item for item in part.get("evidence", []) if item["id"] == "gradient-fidelity"]
    return credible and any(i["sentence"].startswith(_NOTHING_MEASURED) for i in gradients)
