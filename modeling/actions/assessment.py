"""A self-assessment after NIST SP 800-226, filled from a card: every question has a value or an explicit gap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Card = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """One line: `value` reads the card and may find nothing, then `gap` says so; `evidence` names where to look."""

    layer: str
    text: str
    value: Callable[[Card], str]
    gap: str
    evidence: str


def assess(card: Card) -> list[dict[str, Any]]:
    """The filled questions: each has a value and evidence, or an explicit gap."""
    found = []
    for question in QUESTIONS:
        value = question.value(card)
        found.append(
            {
                "layer": question.layer,
                "question": question.text,
                "value": value or None,
                "gap": None if value else question.gap,
                "evidence": question.evidence if value else None,
            }
        )
    return found


def _private(card: Card) -> bool:
    return bool(card["privacy"]["mode"] == "on")


def _epsilon(card: Card) -> str:
    privacy = card["privacy"]
    if not _private(card):
        return ""
    return (
        f"epsilon {_up(privacy['epsilon'])} when a record is left out, {_up(privacy['epsilon_replace_one'])} when it "
        f"is replaced, at delta {privacy['delta']:.3g}"
    )


def _up(epsilon: float) -> str:
    """Rounded up to a thousandth: never less than was spent."""
    return f"{math.ceil(round(epsilon * 1000, 6)) / 1000:g}"


def _unit(card: Card) -> str:
    return str(card["privacy"].get("unit_means", "")) if _private(card) else ""


def _lineage(card: Card) -> str:
    lineage = card["privacy"]["lineage"]
    if lineage["no_bound"]:
        return ""
    return (
        f"epsilon {_up(lineage['epsilon_used'])} of {lineage['epsilon_lifetime']:.4g} used by {lineage['runs']} runs "
        "on these people (Renyi filter, for runs chosen one after another)"
    )


def _mechanisms(card: Card) -> str:
    return "; ".join(
        f"{one['name']}: Gaussian, sigma {one['sigma']:.4g}, clip {one['clip']:.4g}, rate {one['sampling_rate']:.4g}, "
        f"{one['count']} times"
        for one in card["privacy"].get("mechanisms", [])
    )


def _accountant(card: Card) -> str:
    return (
        f"{card['privacy']['accountant']} (dp-accounting {card['code']['dp-accounting']})"
        if _private(card)
        else ""
    )


def _noise(card: Card) -> str:
    if not _private(card):
        return ""
    return "AES-256-CTR keystream keyed by the operating system; no seed is stored; a resumed run draws anew"


def _selection(card: Card) -> str:
    sweep = card["report"].get("sweep")
    if sweep:
        return f"private selection over an expected {sweep['expected_runs']:g} runs, counted in epsilon"
    return "defaults chosen on public data: they cost these people nothing"


def _utility(card: Card) -> str:
    return "; ".join(
        f"{name} {card['metrics'][name]:.3f} ({one['low']:.3f} to {one['high']:.3f})"
        for name, one in card["intervals"].items()
    )


def _bias(card: Card) -> str:
    return "; ".join(
        f"{part['attribute']}: fewer than two groups are large enough to compare"
        if part["gap"] is None
        else f"{part['attribute']}: largest gap {part['gap']:.3f} over {len(part['groups'])} groups"
        for part in card["report"].get("fairness", [])
    )


def _audit(card: Card) -> str:
    audit = card["report"].get("audit")
    if not audit:
        return ""
    return (
        f"{audit['verdict']}: {audit['correct']} of {audit['guesses']} guesses right over {audit['canaries']} "
        f"canaries, lower bound on epsilon {audit['epsilon_lower_bound']:.3g}"
    )


def _declared(card: Card) -> str:
    return ", ".join(card["data"]["declared_public"])


def _commitment(card: Card) -> str:
    commitment = card["data"].get("commitment") or {}
    return f"Merkle root {commitment['train']['root']} over salted leaves" if "train" in commitment else ""


def _always(text: str) -> Callable[[Card], str]:
    return lambda card: text


def _if_private(text: str) -> Callable[[Card], str]:
    return lambda card: text if _private(card) else ""


OFF = "Privacy was off: there is no guarantee."
GUARANTEE, ALGORITHM, DEPLOYMENT, COLLECTION = "guarantee", "algorithm", "deployment", "data collection"
QUESTIONS = (
    Question(GUARANTEE, "Privacy parameters", _epsilon, OFF, "privacy.epsilon"),
    Question(GUARANTEE, "Unit of privacy", _unit, OFF, "privacy.unit"),
    Question(GUARANTEE, "Neighbouring data sets", lambda card: str(card["privacy"].get("adjacency", "")), OFF,
             "privacy.adjacency"),
    Question(GUARANTEE, "Total loss over all runs on these people", _lineage,
             "A run without privacy used these people: no total holds.", "privacy.lineage, ledger"),
    Question(ALGORITHM, "Mechanisms, sensitivity and sampling", _mechanisms, OFF, "privacy.mechanisms"),
    Question(ALGORITHM, "Accounting", _accountant, OFF, "receipt: python -m modeling.core.verify"),
    Question(ALGORITHM, "Randomness", _noise, OFF, "receipt.privacy.noise"),
    Question(ALGORITHM, "Arithmetic of finite precision", lambda card: "",
             "Noise is drawn in double precision as half the sum of four draws; it is not a discrete mechanism, and "
             "attacks on the last bits of floating point are not excluded by proof.", ""),
    Question(ALGORITHM, "Choice of settings", _selection, "", "report.sweep, training.settings"),
    Question(ALGORITHM, "Utility", _utility, "Nothing was measured on held-out people.", "metrics, intervals"),
    Question(ALGORITHM, "Bias", _bias,
             "No protected attribute was declared, so how groups differ was not measured.", "report.fairness"),
    Question(ALGORITHM, "Empirical audit", _audit,
             "This run was not audited with canaries.", "report.audit"),
    Question(DEPLOYMENT, "Trust model", _always(
        "central: the service sees rows while it trains; they are decrypted in the worker's memory only"), "",
        "docs: trust model"),
    Question(DEPLOYMENT, "Security and access control", _always(
        "objects under AES-256-GCM with one key each; row-level security between tenants; roles, scopes and an audit "
        "log chained by HMAC"), "", "audit log"),
    Question(DEPLOYMENT, "Release of intermediate results", _if_private(
        "raw loss, accuracy and gradient norms are never shown; each noised number is in the ledger"), OFF, "ledger"),
    Question(DEPLOYMENT, "Timing and other side channels", lambda card: "",
             "Steps take longer for larger batches. Only the tenant sees the times of its own runs; they are not "
             "made constant.", ""),
    Question(DEPLOYMENT, "Evidence that the code ran as described", _commitment,
             "This run recorded no commitment to its rows.", "receipt"),
    Question(COLLECTION, "Facts taken as public", _declared, "", "data.declared_public"),
    Question(COLLECTION, "Consent and lawful basis", lambda card: "",
             "Not known to the service: the tenant holds them.", ""),
    Question(COLLECTION, "Retention and erasure", _always(
        "kept per person under a key of its own; erasing a person destroys that key, and spent privacy stays spent"),
        "", "ledger, data page"),
)  # fmt: skip
