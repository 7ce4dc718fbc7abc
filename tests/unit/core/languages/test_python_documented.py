import ast
import textwrap

import pytest

from tasks.core.languages.protocol import NotParsableError
from tasks.core.languages.python.documented import first_paragraph
from tasks.core.languages.python.source import decode, parse_source


def extract(text: str, keep_docstring: bool = False, methods: bool = True):
    return parse_source(textwrap.dedent(text)).documented_functions(keep_docstring, methods)


def test_instruction_is_first_paragraph_and_signature() -> None:
    (found,), _ = extract(
        '''
        def area(width, height=1):
            """Return the area of
            a rectangle.

            More text.
            """
            return width * height
        '''
    )
    assert found.instruction == ("Return the area of a rectangle.\n\ndef area(width, height=1):")
    assert found.output == "def area(width, height=1):\n    return width * height"
    assert found.line == 2


def test_docstring_stays_in_the_output_when_asked() -> None:
    (found,), _ = extract('def f(x):\n    """Say x."""\n    return x\n', keep_docstring=True)
    assert found.output == 'def f(x):\n    """Say x."""\n    return x'


def test_signature_keeps_decorators_and_all_its_lines() -> None:
    (found,), _ = extract(
        '''
        @cache
        def f(
            x: int,  # a comment
            y: str = "é",
        ) -> int:
            """Do it."""

            # why
            return x
        '''
    )
    signature = '@cache\ndef f(\n    x: int,  # a comment\n    y: str = "é",\n) -> int:'
    assert found.instruction == f"Do it.\n\n{signature}"
    assert found.output == f"{signature}\n    # why\n    return x"


def test_method_loses_the_indentation_of_its_class_and_names_it() -> None:
    (found,), _ = extract(
        '''
        class Outer:
            class Inner:
                def f(self):
                    """Do it."""
                    return """
        not indented"""
        '''
    )
    assert "# a method of class Outer.Inner\ndef f(self):" in found.instruction
    assert found.output == 'def f(self):\n    return """\nnot indented"""'


def test_methods_are_left_out_when_asked() -> None:
    text = 'class C:\n    def f(self):\n        """Do it."""\n        return 1\n'
    assert extract(text, methods=False)[0] == []


def test_function_inside_a_function_does_not_count() -> None:
    text = 'def f():\n    def g():\n        """Do it."""\n        return 1\n    return g\n'
    assert extract(text)[0] == []


def test_functions_under_if_try_and_with_count() -> None:
    body = '    def {}(x):\n        """Do it."""\n        return x\n'
    text = "if A:\n{}else:\n{}try:\n{}except E:\n{}finally:\n{}with w:\n{}".format(
        *(body.format(name) for name in "abcdef")
    )
    assert [f.instruction[-5] for f in extract(text)[0]] == list("abcdef")


def test_skipped_functions_are_counted_by_reason() -> None:
    _, skipped = extract(
        'def a(): return 1\ndef b():\n    """Doc."""\ndef c():\n    ""\n    return 1\n'
    )
    assert skipped == {
        "functions without docstring": 1,
        "functions with nothing but a docstring": 1,
        "functions with an empty docstring": 1,
    }


def test_docstring_on_the_line_of_the_body_leaves_valid_python() -> None:
    (found,), _ = extract('def f(x): "Say é."; return x\n')
    assert found.instruction == "Say é.\n\ndef f(x):"
    ast.parse(found.output)


def test_form_feed_in_a_file_does_not_shift_the_lines() -> None:
    (found,), _ = extract('a = 1\n\x0c\ndef f(x):\n    """Say x."""\n    return x\n')
    assert found.output == "def f(x):\n    return x"


def test_text_that_is_not_python_is_reported_with_its_line() -> None:
    with pytest.raises(NotParsableError) as error:
        extract('"""Doc."""\nprint "hello"\n')
    assert error.value.line == 2


def test_nesting_beyond_the_parser_is_not_parsable() -> None:
    with pytest.raises(NotParsableError):
        extract('"""x"""\nx = ' + "(" * 5000 + ")" * 5000)


def test_first_paragraph_ends_at_an_empty_line_with_spaces() -> None:
    assert first_paragraph("One\n   two.\n   \n   Three.") == "One two."


def test_declared_encoding_is_obeyed() -> None:
    assert "é" in decode(b"# coding: latin-1\nx = '\xe9'\n")


def test_unknown_declared_encoding_is_not_parsable() -> None:
    with pytest.raises(NotParsableError, match="wrong encoding"):
        decode(b"# coding: klingon\n")


def test_line_ends_of_other_systems_become_newlines() -> None:
    assert decode(b"a\r\nb\rc") == "a\nb\nc"
