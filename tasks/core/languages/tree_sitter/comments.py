"""Comments above a function -> the first paragraph of its documentation.

Understands the marks of C, Ruby and shell comments, and the conventions of JSDoc, Javadoc, Doxygen,
XML documentation (C#) and YARD as far as the first paragraph needs them.
"""

import re

MARK = re.compile(r"^\s*(?:/\*+[!<]?|\*+/|//[/!]*<?|\*(?!\*)|#+)?[ \t]?")
CLOSING = re.compile(r"\s*\*+/\s*$")
# lines that address a tool, or the authors themselves
DIRECTIVE = re.compile(
    r"^(?:!/|eslint|tslint|jshint|jscs|istanbul|prettier|c8 |v8 |@ts-|@flow|noqa|nolint|"
    r"noinspection|clang-(?:format|tidy)|go:|\+build|region\b|endregion\b|rubocop|shellcheck|phpcs|"
    r"pragma|frozen_string_literal|\{?@inherit|todo\b|fixme\b|xxx\b|hack\b|"
    r"=begin|=end|:nodoc:|export \w+$)",
    re.IGNORECASE,
)
RULER = re.compile(r"^[\W_]*$")
BRIEF = re.compile(r"^[@\\](?:brief|short|summary|description|desc|details)\b\s*", re.IGNORECASE)
TAG = re.compile(r"^(?:[@\\][A-Za-z]|:param|:return|Args:$|Arguments:$|Parameters:?$|Returns:$)")
SUMMARY = re.compile(r"<summary>(.*?)(?:</summary>|$)", re.DOTALL)
XML_NAME = re.compile(r"<(?:see|seealso|paramref|typeparamref)\s+\w+=\"(?:\w:)?([^\"]*)\"\s*/?>")
XML_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
INLINE_TAG = re.compile(r"\{@\w+\s+([^{}]*)\}")
LEGAL = re.compile(r"copyright|spdx-license|licensed under|all rights reserved", re.IGNORECASE)


def first_paragraph(comment: str) -> str:
    """The first paragraph of a documentation comment, on one line; "" where it has no prose.

    Args:
        comment: One or several comments with their marks.
    """
    lines = [MARK.sub("", CLOSING.sub("", line)).strip() for line in comment.split("\n")]
    kept = [line for line in lines if not DIRECTIVE.match(line)]
    text = "\n".join(kept)
    if (summary := SUMMARY.search(text)) is not None:
        kept = XML_NAME.sub(lambda name: name[1].rpartition(".")[2], summary[1]).split("\n")
    paragraph: list[str] = []
    for line in kept:
        stripped = BRIEF.sub("", line.strip()).strip()
        if TAG.match(stripped) or (paragraph and (not stripped or stripped in ("<p>", "<p/>"))):
            break
        if not RULER.match(stripped):
            paragraph.append(stripped)
    prose = INLINE_TAG.sub(lambda tag: tag[1], " ".join(paragraph))
    prose = " ".join(XML_TAG.sub("", prose).split())
    return "" if LEGAL.search(prose) else prose
