import pytest

from tasks.core.settings.config import check
from tasks.filtering.rules.registry import RULES
from tasks.filtering.rules.row_view import RowView
from tasks.filtering.score_rows import measure

FUNCTION = "def f(x, y=1):\n    z = x + y\n    return z"
INSTRUCTION = "Add two numbers and give their sum.\n\ndef f(x, y=1):"


def reasons(output: str = FUNCTION, kind: str = "function", **given: object) -> dict[str, dict]:
    settings = check({"filter": given.pop("settings", {})}).filter
    row = {"instruction": INSTRUCTION, "input": "", "licence": "MIT", **given}
    rules = [rule.values(settings) for rule in RULES]
    _, found = measure(RowView(output=output, kind=kind, **row), rules)
    return {reason["rule"]: reason for reason in found}


def test_good_function_passes_every_rule() -> None:
    assert reasons() == {}


def test_rules_about_python_do_not_measure_other_languages() -> None:
    javascript = "take(amount) {\n  this.rest -= amount;\n}"
    assert reasons(javascript, language="javascript") == {}
    assert set(reasons(javascript, language="python")) >= {"python_syntax", "function_returns"}


def test_rules_about_documentation_and_length_measure_every_language() -> None:
    found = reasons("reset();\n" * 200, language="java", instruction="Do.\n\nvoid f()")
    assert set(found) == {"docstring_characters", "docstring_words", "function_lines"}


def test_every_failing_rule_is_recorded_with_value_and_threshold() -> None:
    found = reasons("def f():\n    pass", instruction="Do.\n\ndef f():", licence="GPL-3.0-only")
    told = {name: (r["value"], r["threshold"]) for name, r in found.items()}
    assert told == {
        "function_returns": (0, 1),
        "function_arguments": (0, 1),
        "docstring_characters": (3, 20),
        "docstring_words": (1, 4),
        "licence": (1, 0),
    }
    assert found["licence"]["note"] == "GPL-3.0-only"


@pytest.mark.parametrize(
    ("rule", "setting", "threshold", "passing", "failing"),
    [
        ("lines", "max_lines", 3, "abc\n" * 3, "abc\n" * 4),
        ("mean_line", "max_mean_line", 4, "aaaa\nbbbb", "aaaa\nbbbbb"),
        ("longest_line", "max_longest_line", 5, "aaaaa\nb", "aaaaaa\nb"),
        ("alphabetic_share", "min_alphabetic_share", 0.5, "ab12", "ab123"),
        ("encoded_run", "max_encoded_characters", 64, "a" * 64, "a" * 65),
        ("encoded_share", "max_encoded_share", 0.5, "a" * 64 + "!" * 64, "a" * 65 + "!" * 64),
    ],
)
def test_threshold_is_the_last_value_that_passes(
    rule, setting, threshold, passing, failing
) -> None:
    loose = {"max_encoded_share": 1, setting: threshold}
    assert rule not in reasons(passing, "file", settings=loose)
    assert rule in reasons(failing, "file", settings=loose)


@pytest.mark.parametrize(
    "encoded",
    ["QUJD+/" * 300, "0x1f, 0x2e, " * 200, "1f 2e 3d " * 200, "\\x1f\\x2e" * 300, "\\u00e9" * 300],
)
def test_encoded_data_of_each_kind_is_found(encoded: str) -> None:
    assert "encoded_share" in reasons(f"data = '{encoded}'", "file")


def test_long_line_of_plain_words_is_no_encoded_data() -> None:
    assert not {"encoded_run", "encoded_share"} & set(reasons("word " * 150, "file"))


def test_marker_counts_in_the_first_lines_only() -> None:
    head = "# This file is Auto-Generated\nx = 1"
    assert reasons(head, "file")["generated_code"]["note"] == "auto-generated"
    assert "generated_code" not in reasons("x = 1\n" * 5 + head, "file")


@pytest.mark.parametrize(
    ("body", "returns"),
    [
        ("return 1", 1),
        ("return", 0),
        ("return None", 0),
        ("def g():\n        return 1", 0),
        ("class G:\n        def g(self):\n            return 1", 0),
        ("if x:\n        return 1\n    else:\n        return 2", 2),
        ("try:\n        pass\n    except E:\n        return 1", 1),
        ("match x:\n        case 1:\n            return 1", 1),
        ("yield 1", 0),
        ("text = 'return 1'", 0),
    ],
)
def test_returns_are_counted_on_the_tree(body: str, returns: int) -> None:
    found = reasons(f"def f(x) -> int:\n    {body}", settings={"min_function_returns": 99})
    assert found["function_returns"]["value"] == returns


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        ("", 0),
        ("self", 0),
        ("cls, x", 1),
        ("x, self", 2),
        ("*a, b, **k", 3),
        ("a, /, b", 2),
        ("self, *, x", 1),
    ],
)
def test_arguments_are_counted_without_self_and_cls(arguments: str, count: int) -> None:
    found = reasons(f"def f({arguments}):\n    return 1", settings={"min_function_arguments": 99})
    assert found["function_arguments"]["value"] == count


def test_async_and_decorated_functions_are_functions() -> None:
    assert reasons("@cache\nasync def f(x: int) -> int:\n    return x") == {}


def test_docstring_in_the_output_goes_before_the_instruction() -> None:
    found = reasons('def f(x):\n    """Short."""\n    return x')
    assert found["docstring_words"]["value"] == 1


def test_docstring_is_told_from_a_signature_with_empty_lines() -> None:
    found = reasons(instruction="Do it.\n\ndef f(\n    x,\n\n    y=1,\n):")
    assert found["docstring_words"]["value"] == 2


def test_function_rules_leave_instruction_rows_alone() -> None:
    assert reasons("print('hello')", "instruction", instruction="Say hello.") == {}


def test_rules_about_text_look_at_every_kind_of_row() -> None:
    assert "alphabetic_share" in reasons("1 2 3", "edit", instruction="Fix it.")


def test_output_that_does_not_parse_tells_where() -> None:
    found = reasons("def f(x):\n  return x +")
    assert found["python_syntax"]["note"].startswith("line 2:")


def test_python_is_required_of_the_kinds_in_the_settings() -> None:
    assert "python_syntax" not in reasons("SELECT a FROM b", "file")
    both = {"require_python": ["function", "instruction"]}
    assert "python_syntax" in reasons("SELECT a FROM b", "instruction", settings=both)


def test_unknown_licence_rejects_code_but_not_instruction_rows() -> None:
    assert reasons(licence="")["licence"]["note"] == "unknown"
    assert reasons(licence="", kind="instruction") == {}
    assert "licence" in reasons(
        kind="instruction", licence="", settings={"keep_unknown_licence": []}
    )


def test_empty_output_measures_without_failing() -> None:
    assert reasons("", "file") == {}


LONG_PROSE = "A paragraph of prose stands on one line, whatever its length. " * 30
DIGITS = "\n".join("1, 2, 3, 4, 5, 6, 7, 8, 9" for _ in range(10))


@pytest.mark.parametrize("kind", ["instruction", "conversation", "text"])
@pytest.mark.parametrize("output", [LONG_PROSE, DIGITS, "[83, 83, 72]", "7", "下面的函数返回" * 50])
def test_thresholds_for_code_do_not_apply_to_prose_and_data(output: str, kind: str) -> None:
    assert reasons(output, kind) == {}


def test_thresholds_for_code_apply_to_fenced_code() -> None:
    fenced = f"Here it is:\n\n```python\n{DIGITS}\n```\n"
    assert set(reasons(fenced, "instruction")) == {"alphabetic_share"}
    for tag in ("", "text", "json"):
        assert reasons(fenced.replace("python", tag), "instruction") == {}


@pytest.mark.parametrize(
    ("output", "content"),
    [
        ("def f(x):\n    return x", "code"),
        ("int main() {\n  int x = 1;\n  return x;\n}", "code"),
        ("SELECT name FROM users;", "code"),
        ("Do it so:\n\n```python\nf(1)\n```\n", "prose with code"),
        (LONG_PROSE, "prose"),
        ("下面的函数返回列表中的数", "prose"),
        ('{"tool": "look_up", "day": 3}', "data"),
        ("[83, 83, 72]", "data"),
    ],
)
def test_outputs_are_code_prose_or_data(output: str, content: str) -> None:
    assert RowView("Do.", "", output, "instruction", "").content == content


def test_outputs_of_files_are_code() -> None:
    assert RowView("Do.", "", "7", "function", "").content == "code"


def test_rule_names_are_unique() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_setting_of_a_rule_is_its_threshold_or_a_parameter(rule) -> None:
    settings = check({}).filter
    value = getattr(settings, rule.setting)
    values = rule.values(settings)
    assert value in (values.threshold, values.kinds, *values.parameters)


def test_values_of_rules_have_the_same_repr_in_every_process() -> None:
    # it enters the key of the row cache; the order of a set of strings differs by process
    values = [rule.values(check({}).filter) for rule in RULES]
    assert "{" not in repr(values) and " at 0x" not in repr(values)
