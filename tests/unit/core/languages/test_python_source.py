import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.core.languages.python.source import PythonFunction, parse_python


def function(text: str) -> PythonFunction:
    source, error = parse_python(text)
    assert source is not None, error
    return next(source.functions())


STATEMENTS = st.lists(
    st.sampled_from(["x = {a}", "return {a} + {b}", "if {a}:\n        {b} = 1", "{a}.go({b})"]),
    min_size=1,
    max_size=4,
)


@given(STATEMENTS)
def test_renamed_functions_have_equal_outlines_and_shapes(statements: list[str]) -> None:
    body = "\n    ".join(statements)
    one = function("def f(p, q):\n    " + body.format(a="p", b="q"))
    other = function("def g(s: int, t=0, *, k=1):\n    " + body.format(a="s", b="t"))
    same = function("def g(s: int, t):\n    '''Words.'''\n    " + body.format(a="s", b="t"))
    assert one.shape() == same.shape() and one.outline() == same.outline()
    assert one.shape() != other.shape()


def test_methods_are_listed_beside_functions_in_order() -> None:
    text = "class A:\n    def one(self): ...\n    x = 1\nasync def two(): ...\n"
    source, _ = parse_python(text)
    assert source is not None
    assert [found.name for found in source.functions_and_methods()] == ["one", "two"]
    assert [found.name for found in source.functions()] == ["two"]


def test_function_that_is_nested_too_deep_has_no_shape() -> None:
    assert function("def f(x):\n    return " + " + ".join(["x"] * 1500)).shape() is None


@pytest.mark.parametrize("text", ["def f(:", "x = '\0'"])
def test_text_that_does_not_parse_has_a_reason(text: str) -> None:
    source, error = parse_python(text)
    assert source is None and error
