import pytest

from tasks.filtering.rules.licenses import is_allowed

ALLOWED = ("MIT", "Apache-2.0", "BSD-3-Clause")


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("mit", True),
        ("GPL-3.0-only", False),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("MIT AND (GPL-3.0-only OR Apache-2.0)", True),
        ("GPL-3.0-only OR MIT AND Apache-2.0", True),
        ("(GPL-3.0-only OR MIT) AND LGPL-2.1-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-2.0-only WITH Classpath-exception-2.0", False),
        ("", False),
        ("MIT OR", False),
        ("(MIT", False),
        ("MIT MIT", False),
        ("MIT/Apache-2.0", False),
    ],
)
def test_expression_is_met_with_allowed_licenses_alone(expression: str, allowed: bool) -> None:
    assert is_allowed(expression, ALLOWED) is allowed
