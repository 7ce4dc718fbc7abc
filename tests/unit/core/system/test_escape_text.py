"""Untrusted text, and errors of libraries in one line."""

import pytest

from tasks.core.system.escape_text import escape_controls, first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\nfirst\nsecond"), "first"),
        (RuntimeError(), "RuntimeError"),
        (OSError("x" * 300), "x" * 200),
    ],
)
def test_an_error_is_one_short_line_or_the_name_of_its_class(error, line):
    assert first_line(error) == line


def test_control_and_bidirectional_characters_are_written_as_code_points():
    assert escape_controls("a\x1b[2J\u202eb\n\tc") == "a⟨U+001B⟩[2J⟨U+202E⟩b\n\tc"
