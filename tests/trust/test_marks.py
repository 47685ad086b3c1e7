"""Marks of attacks: misled, failed or credible."""

from __future__ import annotations

from bench.trust import attack_marks, evidence_of
from tests.trust.frames import case, frame, honest
from tests.trust.situations import FLAT, MASKED, TABLE


def test_marks() -> None:
    """Gradient attacks are misled where others broke what they left; on honest models none is."""
    this = case({**honest(), **MASKED}, failures=[("ead", "0.1", "raised")])
    marks = attack_marks(this, evidence_of(this))
    assert {marks[name] for name in ("pgd", "apgd-ce", "apgd-t", "margin-pgd")} == {"misled"}
    assert (marks["fd-pgd"], marks["square"], marks["ead"]) == ("credible", "credible", "failed")
    assert "clean" not in marks
    assert "probe-gradients" not in marks
    calm = case(honest())
    assert set(attack_marks(calm, evidence_of(calm)).values()) == {"credible"}


def test_attacks_on_a_flat_loss_are_marked_failed() -> None:
    """Large logits: those on the cross-entropy alone. A flat margin: all that follow gradients."""
    this = case({**honest(), **TABLE["large logits"][0]})
    marks = attack_marks(this, evidence_of(this))
    assert (marks["apgd-ce"], marks["pgd"], marks["fgsm"]) == ("failed",) * 3
    assert (marks["apgd-t"], marks["margin-pgd"]) == ("credible",) * 2
    flat = case({**honest(), "probe-gradients": frame(**FLAT)})
    marks = attack_marks(flat, evidence_of(flat))
    assert (marks["apgd-t"], marks["square"]) == ("failed", "credible")
