import pytest

from tasks.core.rows.spdx import canonical, is_met
from tasks.core.settings.config import check
from tasks.filtering.rules.licenses import LICENCE

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
        ("MIT/Apache-2.0", True),
    ],
)
def test_expression_is_met_with_allowed_licenses_alone(expression: str, allowed: bool) -> None:
    assert is_met(expression, ALLOWED) is allowed


@pytest.mark.parametrize("depth", [50, 200, 400, 4000])
def test_deep_brackets_are_read_or_unknown_without_an_error(depth: int) -> None:
    is_met(f"{'(' * depth}MIT{')' * depth}", ALLOWED)
    assert not is_met("(" * depth, ALLOWED) and canonical("(" * depth) == ""


@pytest.mark.parametrize(
    ("written", "spdx"),
    [
        ("cc-by-4.0", "CC-BY-4.0"),
        ("cc0", "CC0-1.0"),
        ("odc-by", "ODC-By-1.0"),
        ("openrail", "LicenseRef-OpenRAIL"),
        ("bigcode-openrail-m or mit", "LicenseRef-BigCode-OpenRAIL-M OR MIT"),
    ],
)
def test_licenses_of_data_sets_are_known(written: str, spdx: str) -> None:
    assert canonical(written) == spdx
    assert is_met(written, check({}).filter.licences)


def test_the_list_of_licenses_is_extended_without_a_copy() -> None:
    settings = check({"filter": {"more_licences": ["GPL-3.0-only", "Our own"]}}).filter
    allowed = LICENCE.parameters(settings)[0]
    for name in ("MIT", "GPL-3.0-only", "Our own", "MIT AND GPL-3.0-only"):
        assert is_met(name, allowed)
    assert not is_met("AGPL-3.0-only", allowed)
