import pytest

from tasks.core.languages.encoding import legacy_encoding
from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.registry import BY_NAME

WESTERN = "/* Größe und Länge: übernimmt den Wert, für naïve Café-Gäste */\nint f;\n"


@pytest.mark.parametrize(
    ("raw", "encoding"),
    [
        (WESTERN.encode(), ""),
        (WESTERN.encode("utf-16"), ""),
        (WESTERN.encode("latin-1"), "cp1252"),
        ("// costs 5 €\n".encode("cp1252"), "cp1252"),
        ("// -*- coding: koi8-r -*-\n// размер\n".encode("koi8-r"), "koi8-r"),
        ("# encoding: utf-8\n# café\n".encode(), ""),
        ("# encoding: utf-8\n# café\n".encode("latin-1"), "cp1252"),
        ("// размер окна\n".encode("koi8-r"), ""),
        ("// 返回窗口的大小\n".encode("gbk"), ""),
        ("// ウィンドウの大きさ\n".encode("shift-jis"), ""),
        (b"int a = 1;\xff\x00\x81\n", ""),
    ],
)
def test_encoding_is_the_declared_one_or_western_where_the_bytes_look_like_it(
    raw: bytes, encoding: str
) -> None:
    assert legacy_encoding(raw) == encoding


def test_western_source_is_read_and_that_of_an_unknown_encoding_is_not() -> None:
    assert BY_NAME["c"].decode(WESTERN.encode("latin-1")) == WESTERN
    with pytest.raises(NotParsableError, match="is not utf-8"):
        BY_NAME["c"].decode("// 返回窗口的大小\n".encode("gbk"))
