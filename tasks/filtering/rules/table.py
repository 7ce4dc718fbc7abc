"""The table of the rules: what is measured, against which threshold, on which kinds of rows.

A rule is a pure measure and a threshold, so all failing rules of a row are recorded with their
values, and a threshold can be tried again on recorded values. A new rule is one line here.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.filtering.rules import encoded_data, functions, line_length
from tasks.filtering.rules.licences import is_allowed
from tasks.filtering.rules.row_view import Sample

FUNCTION = ("function",)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        setting: Field of the section `filter` that a person would change.
        measure: Value of a row.
        threshold: The last value that passes.
        is_most: Whether `threshold` is the most allowed; otherwise the least.
        kinds: Kinds of rows that it looks at; None: all.
        note: What to tell about a row that fails, besides the value.
    """

    name: str
    setting: str
    measure: Callable[[Sample], float]
    threshold: float
    is_most: bool = True
    kinds: Collection[str] | None = None
    note: Callable[[Sample], str] | None = None

    def looks_at(self, kind: str) -> bool:
        """Whether the rule is about rows of a kind."""
        return self.kinds is None or kind in self.kinds

    def fails(self, value: float) -> bool:
        """Whether a measured value is beyond the threshold."""
        return value > self.threshold if self.is_most else value < self.threshold


def build_rules(settings: Mapping[str, Any]) -> tuple[Rule, ...]:
    """The rules with thresholds from {field of the section `filter`: value}, in the order of
    reports."""

    def at_most(name: str, setting: str, measure: Callable[[Sample], float], *kinds: str) -> Rule:
        return Rule(name, setting, measure, settings[setting], True, kinds or None)

    def at_least(name: str, setting: str, measure: Callable[[Sample], float], *kinds: str) -> Rule:
        return Rule(name, setting, measure, settings[setting], False, kinds or None)

    return (
        at_most("lines", "max_lines", line_length.line_count),
        at_most("mean_line", "max_mean_line", line_length.mean_line),
        at_most("longest_line", "max_longest_line", line_length.longest_line),
        at_least("alphabetic_share", "min_alphabetic_share", line_length.alphabetic_share),
        _generated(settings["generated_markers"], settings["generated_marker_lines"]),
        at_most("encoded_run", "max_encoded_characters", encoded_data.longest_encoded),
        at_most("encoded_share", "max_encoded_share", encoded_data.encoded_share),
        Rule(
            "python_syntax",
            "require_python",
            functions.syntax_errors,
            0,
            kinds=settings["require_python"],
            note=lambda row: row.parsed[1],
        ),
        at_least("function_returns", "min_function_returns", functions.returned_values, *FUNCTION),
        at_least(
            "function_arguments", "min_function_arguments", functions.argument_count, *FUNCTION
        ),
        at_least(
            "docstring_characters",
            "min_docstring_characters",
            functions.docstring_characters,
            *FUNCTION,
        ),
        at_least("docstring_words", "min_docstring_words", functions.docstring_words, *FUNCTION),
        at_most("function_lines", "max_function_lines", line_length.line_count, *FUNCTION),
        _licence(frozenset(settings["licences"]), settings["keep_unknown_licence"]),
    )


def _generated(markers: tuple[str, ...], first_lines: int) -> Rule:
    def find(row: Sample) -> str:
        return encoded_data.generated_marker(row, markers, first_lines)

    return Rule(
        "generated_code", "generated_markers", lambda row: float(bool(find(row))), 0, note=find
    )


def _licence(allowed: frozenset[str], keep_unknown: Collection[str]) -> Rule:
    def measure(row: Sample) -> float:
        if not row.licence:
            return float(row.kind not in keep_unknown)
        return float(not is_allowed(row.licence, allowed))

    return Rule("licence", "licences", measure, 0, note=lambda row: row.licence or "unknown")
