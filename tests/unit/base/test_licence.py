from pathlib import Path

import pytest

from tasks.base.licence import licence_of


@pytest.mark.parametrize(
    ("name", "text", "licence"),
    [
        ("README.md", "---\nlicense: mit\ntags:\n- x\n---\n# A", "mit"),
        ("README.md", "---\nlicense: other\nlicense_name: stability\n---\n# A", "stability"),
        ("README.md", "---\nlicense: other\n---\n# A", ""),
        ("README.md", "# A\nlicense: mit\n", ""),
        ("METADATA", "Name: a\nLicense-Expression: MIT\nLicense: x\n\nlicense: gpl", "MIT"),
        ("METADATA", "Name: a\nLicense: Apache-2.0\n", "Apache-2.0"),
        ("METADATA", "Name: a\n", ""),
    ],
)
def test_the_licence_is_read_where_it_is_declared(
    tmp_path: Path, name: str, text: str, licence: str
) -> None:
    (tmp_path / name).write_text(text)
    assert licence_of([tmp_path / name])[0] == licence
