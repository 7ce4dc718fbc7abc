"""Reasons against a row, and the setting that moves each: those of the rules, and those that need
more than one row's measure (duplicates, benchmarks, private keys, doctests)."""

from typing import TYPE_CHECKING, Any

from tasks.core.decontamination.problem_index import LAYERS, Hit
from tasks.filtering.report.what_if import Threshold
from tasks.filtering.rules.registry import RULES

if TYPE_CHECKING:
    from tasks.core.settings.filter import FilterSettings

NOTE_CHARACTERS = 200
EXACT, NEAR, NGRAMS = "duplicate", "near_duplicate", "contamination_ngrams"
MORE_ANSWERS = "more_answers"
NOT_EXECUTABLE, PRIVATE_KEY = "not_executable", "private_key"
# the setting of each layer of decontamination, below filter.decontamination
LAYER_SETTINGS = ("min_substring_characters", "max_containment", "syntax_trees", "execution")

Reason = dict[str, Any]  # an entry of row_schema.REASON


def reason(rule: str, value: float, threshold: float, note: str = "") -> Reason:
    """One reason against a row."""
    return {
        "rule": rule,
        "value": float(value),
        "threshold": float(threshold),
        "note": note[:NOTE_CHARACTERS],
    }


def contamination(hit: Hit, max_containment: float) -> Reason:
    """The reason for a problem found in the row."""
    note = f"{hit.problem_id}: {hit.evidence}"
    return reason(f"contamination_{hit.layer}", hit.value, hit.threshold(max_containment), note)


def settings_by_reason(settings: "FilterSettings") -> dict[str, str]:
    """{reason: field of the section `filter` that moves it}, in the order of reports."""
    fields = {rule.name: rule.setting for rule in RULES}
    if settings.require_executable:
        fields[NOT_EXECUTABLE] = "require_executable"
    fields[PRIVATE_KEY] = "privacy.drop_private_keys"
    for layer, field in zip(LAYERS, LAYER_SETTINGS, strict=True):
        fields[f"contamination_{layer}"] = f"decontamination.{field}"
    if settings.exact_duplicates:
        fields[EXACT] = "exact_duplicates"
    if settings.max_answers is not None:
        fields[MORE_ANSWERS] = "max_answers"
    if settings.near_duplicates.enabled:
        fields[NEAR] = "near_duplicates.jaccard"
    return fields


def thresholds(settings: "FilterSettings") -> list[Threshold]:
    """The thresholds that the what-if report moves."""
    moved = [
        Threshold(rule.name, float(rule.threshold(settings)), rule.direction == "max")
        for rule in RULES
    ]
    shares = {NGRAMS: settings.decontamination.max_containment}
    if settings.near_duplicates.enabled:
        shares[NEAR] = settings.near_duplicates.jaccard
    return moved + [Threshold(n, float(v), inclusive=True, highest=1.0) for n, v in shares.items()]
