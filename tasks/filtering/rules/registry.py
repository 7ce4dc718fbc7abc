"""Registry of the filter rules. The order is that of reports and of the measurements' columns."""

from tasks.filtering.rules.alphabetic_share import ALPHABETIC_SHARE
from tasks.filtering.rules.base_loss import BASE_LOSS
from tasks.filtering.rules.encoded_data import ENCODED_RUN, ENCODED_SHARE
from tasks.filtering.rules.function_content import (
    DOCSTRING_CHARACTERS,
    DOCSTRING_WORDS,
    FUNCTION_ARGUMENTS,
    FUNCTION_RETURNS,
)
from tasks.filtering.rules.generated_code import GENERATED_CODE
from tasks.filtering.rules.licenses import LICENCE
from tasks.filtering.rules.line_length import FUNCTION_LINES, LINES, LONGEST_LINE, MEAN_LINE
from tasks.filtering.rules.protocol import Rule
from tasks.filtering.rules.python_syntax import PYTHON_SYNTAX

RULES: tuple[Rule, ...] = (
    LINES,
    MEAN_LINE,
    LONGEST_LINE,
    ALPHABETIC_SHARE,
    GENERATED_CODE,
    ENCODED_RUN,
    ENCODED_SHARE,
    PYTHON_SYNTAX,
    FUNCTION_RETURNS,
    FUNCTION_ARGUMENTS,
    DOCSTRING_CHARACTERS,
    DOCSTRING_WORDS,
    FUNCTION_LINES,
    LICENCE,
    BASE_LOSS,
)
