"""Rules: what makes a function worth learning. It returns a value, takes arguments and has a
docstring; a function without these teaches little about its instruction."""

from tasks.filtering.rules.protocol import Rule, functions_only
from tasks.filtering.rules.row_view import RowView


def returned_values(row: RowView) -> float:
    """`return` statements of the function itself with a value other than None."""
    return row.function.returned_values if row.function else 0


def argument_count(row: RowView) -> float:
    """Arguments of the function without `self` and `cls`."""
    return row.function.argument_count if row.function else 0


def docstring_characters(row: RowView) -> float:
    """Length of the docstring."""
    return len(row.docstring)


def docstring_words(row: RowView) -> float:
    """Words of the docstring."""
    return len(row.docstring.split())


FUNCTION_RETURNS = Rule(
    name="function_returns",
    setting="min_function_returns",
    unit="return statements",
    python_only=True,  # elsewhere a function may write through its arguments, or return implicitly
    measure=returned_values,
    threshold=lambda settings: settings.min_function_returns,
    direction="min",
    kinds=functions_only,
)
FUNCTION_ARGUMENTS = Rule(
    name="function_arguments",
    setting="min_function_arguments",
    unit="arguments",
    python_only=True,
    measure=argument_count,
    threshold=lambda settings: settings.min_function_arguments,
    direction="min",
    kinds=functions_only,
)
DOCSTRING_CHARACTERS = Rule(
    name="docstring_characters",
    setting="min_docstring_characters",
    unit="characters",
    measure=docstring_characters,
    threshold=lambda settings: settings.min_docstring_characters,
    direction="min",
    kinds=functions_only,
)
DOCSTRING_WORDS = Rule(
    name="docstring_words",
    setting="min_docstring_words",
    unit="words",
    measure=docstring_words,
    threshold=lambda settings: settings.min_docstring_words,
    direction="min",
    kinds=functions_only,
)
