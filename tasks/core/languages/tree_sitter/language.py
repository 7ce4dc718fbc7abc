"""A `Grammar` -> a `Language`."""

from functools import partial

from tasks.core.languages.encoding import legacy_encoding
from tasks.core.languages.protocol import Imports, Language, NotParsableError, no_imports
from tasks.core.languages.tree_sitter.grammar import Grammar
from tasks.core.languages.tree_sitter.source import TreeSource, parse_tree


def tree_sitter_language(
    name: str,
    title: str,
    extensions: tuple[str, ...],
    grammar: Grammar,
    test_names: tuple[str, ...] = (),
    test_folders: frozenset[str] = frozenset(),
    shebangs: tuple[str, ...] = (),
    imports: Imports = no_imports,
) -> Language:
    """The language that a grammar describes; arguments are those of `Language`.

    Args:
        test_folders: More folders of tests than `Language` has.
    """
    return Language(
        name=name,
        title=title,
        extensions=extensions,
        parser=("tree-sitter", grammar.package),
        line_comment=grammar.line_comment,
        decode=decode,
        parse=partial(_parse, grammar, title),
        parse_fragment=partial(_parse_fragment, grammar, title),
        shebangs=shebangs,
        imports=imports,
        test_names=test_names,
        test_folders=Language.test_folders | test_folders,
    )


def decode(raw: bytes) -> str:
    """Text in UTF-8, in UTF-16 with a mark of the byte order, or by `legacy_encoding`; with "\\n"
    line ends.

    Raises:
        NotParsableError: It is in another encoding, or contains a NUL byte.
    """
    is_utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
    encoding = "utf-16" if is_utf16 else legacy_encoding(raw) or "utf-8-sig"
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        problem = f"byte {raw[error.start]:#04x} is not {encoding.removesuffix('-sig')}"
        raise NotParsableError(problem, line) from error
    if "\0" in text:
        raise NotParsableError("contains a NUL byte", text[: text.index("\0")].count("\n") + 1)
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def _parse(grammar: Grammar, title: str, text: str) -> TreeSource:
    return parse_tree(grammar, title, text, grammar.max_error_share)


def _parse_fragment(grammar: Grammar, title: str, text: str) -> TreeSource:
    for number, whole in enumerate(grammar.fragments, 1):
        try:
            before = len(whole.partition("{}")[0].encode())
            return parse_tree(grammar, title, whole.replace("{}", text, 1), 0.0, before)
        except NotParsableError:
            if number == len(grammar.fragments):
                raise
    raise AssertionError("a grammar has at least one form of fragments")
