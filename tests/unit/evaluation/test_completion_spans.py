"""Spans of held-out code: where they end, which are drawn, and which are left out."""

from collections import Counter

import pytest

from tasks.evaluation.completion import scores
from tasks.evaluation.completion.documents import CodeText
from tasks.evaluation.completion.posed_span import BOTH, LEFT, pose
from tasks.evaluation.completion.spans import UNCLEAR_END, cut, draw
from tasks.evaluation.generation.scope_end import BLOCK, BODY, LINE, SIZES, STATEMENT, end_of

PYTHON = '''"""Counts of things in a shop."""


def total(prices, discount):
    """The sum of the prices."""
    found = 0.0
    for price in prices:
        # a comment about brackets
        found += price * (1 - discount)
        if found > 1_000:
            raise ValueError(
                "too much",
            )
    return round(found, 2)


class Shop:
    def open(self, key):
        if key in self.keys:
            self.is_open = True
            self.log.append("opened")
        return self.is_open
'''
JAVASCRIPT = """// A small queue of jobs with a limit.
function Queue(limit) {
  this.limit = limit;
  this.jobs = [];
}

Queue.prototype.push = function (job) {
  if (this.jobs.length >= this.limit) {
    throw new Error("the queue is full: " + this.limit);
  }
  this.jobs.push(job);
  return this.jobs.length;
};
"""


def text(source: str, language: str = "python", head: str = "") -> CodeText:
    return CodeText("shop/file", "shop", "file", language, head, source)


@pytest.mark.parametrize(
    ("size", "before", "completion", "kept"),
    [
        (LINE, "    x = ", "f(1)\n    y = 2\n", "f(1)"),
        (LINE, "    x = ", "f(1)", "f(1)"),
        (STATEMENT, "    ", "x = f(\n    1,\n)\n    y = 2\n", "x = f(\n    1,\n)"),
        (STATEMENT, "def f():", "\n    if x:\n        y()\n    z()\n", "if x:\n        y()"),
        (STATEMENT, "function f() { ", "return 1; }", "return 1;"),
        (BLOCK, "    if x:", "\n        y()\n\n        z()\n    t()\n", "y()\n\n        z()"),
        (BLOCK, "  if (x) {", '\n    y("}");\n  }\n  z();\n', 'y("}");'),
        (BODY, "func f() {", "\n\tif x {\n\t\ty()\n\t}\n}\n", "if x {\n\t\ty()\n\t}"),
        (BODY, "def f(): ", "return 1\n\ndef g(): pass\n", "return 1"),
        (BODY, "def f():", "\n    return 1\n", "return 1"),
    ],
)
def test_a_completion_is_cut_where_its_scope_ends(
    size: str, before: str, completion: str, kept: str
) -> None:
    assert cut(size, before, completion) == kept


def test_a_scope_that_is_not_finished_has_no_end_yet() -> None:
    assert end_of(BODY, "def f():", "\n    x = [\n    1,\n    ") is None
    assert end_of(STATEMENT, "    ", "x = f(1)") is None


@pytest.mark.parametrize(("source", "language"), [(PYTHON, "python"), (JAVASCRIPT, "javascript")])
@pytest.mark.parametrize("style", [LEFT, BOTH])
def test_a_model_that_writes_what_stands_there_is_always_right(
    source: str, language: str, style: str
) -> None:
    drawn = draw(text(source, language), 20, 1000, 0, Counter())
    assert all(drawn[size] for size in SIZES)
    for span in (span for found in drawn.values() for span in found):
        problem = pose(span, style, 10_000)
        rest = problem.reference + source[span.end :]
        assert cut(span.size, problem.before, rest) == span.reference


def test_spans_are_the_same_whatever_else_is_drawn() -> None:
    few, many = (draw(text(PYTHON), count, 1000, 0, Counter()) for count in (2, 20))
    assert all(set(few[size]) <= set(many[size]) for size in SIZES)


def test_a_function_body_is_posed_without_its_docstring() -> None:
    bodies = draw(text(PYTHON), 20, 1000, 0, Counter())[BODY]
    assert any(span.reference.startswith("found = 0.0") for span in bodies)
    assert not any('"""' in span.reference for span in bodies)


def test_a_rest_of_line_is_in_no_comment_and_no_docstring() -> None:
    lines = draw(text(PYTHON), 64, 1000, 0, Counter())[LINE]
    assert len(lines) > 4
    assert not any("bracket" in s.reference or "sum of" in s.reference for s in lines)


def test_a_span_that_could_never_be_written_whole_is_not_drawn() -> None:
    found = draw(text(PYTHON), 20, 30, 0, Counter())
    assert all(len(span.reference) <= 30 for spans in found.values() for span in spans)


def test_a_span_without_a_visible_end_is_left_out_and_counted() -> None:
    source = "values = compute(first, second)\nif values:\n    first = 1\nelse:\n    second = 2\n"
    left_out: Counter[str] = Counter()
    found = draw(text(source * 3), 20, 1000, 0, left_out)[STATEMENT]
    assert left_out[UNCLEAR_END]
    assert not any("else" in span.reference for span in found)


def test_a_method_of_a_class_is_parsed_where_it_stands() -> None:
    method = "int sum(int[] values) {\n    int total = 0;\n    return total + values.length;\n}"
    head = "// Adds the numbers of an array, without a check.\n"
    (body,) = draw(text(method, "java", head), 1, 1000, 0, Counter())[BODY]
    assert body.reference == "int total = 0;\n    return total + values.length;"


def test_context_is_cut_at_its_far_ends() -> None:
    (span,) = draw(text(PYTHON, head="# shop.py\n"), 1, 1000, 3, Counter())[STATEMENT]
    left, both = pose(span, LEFT, 60), pose(span, BOTH, 60)
    assert left.prompt.startswith("# shop.py\n")
    assert PYTHON[: span.start].rstrip().endswith(left.prompt.removeprefix("# shop.py\n"))
    prefix, suffix = both.prompt.split("\0fim_suffix\0")
    assert PYTHON[: span.start].endswith(
        prefix.removeprefix("\0fim_prefix\0").removeprefix("# shop.py\n")
    )
    assert PYTHON[span.end :].startswith(suffix.removesuffix("\0fim_middle\0"))


def test_edit_similarity_is_that_of_the_levenshtein_distance() -> None:
    def slow(one: str, two: str) -> int:
        row = list(range(len(two) + 1))
        for i, a in enumerate(one, 1):
            last, row[0] = row[0], i
            for j, b in enumerate(two, 1):
                last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (a != b))
        return row[-1]

    for one, two in [("kitten", "sitting"), ("", "ab"), ("return a + b", "return b"), ("ab", "")]:
        assert scores.distance(one, two) == slow(one, two)
    assert scores.edit_similarity(" kitten\n", "sitting") == pytest.approx(1 - 3 / 7)
    assert scores.edit_similarity("", " ") == 1.0


def test_exact_match_and_first_line_ignore_white_space_at_the_ends_only() -> None:
    assert scores.is_exact("a = 1\n  b = 2", "\n  a = 1  \n  b = 2\n")
    assert not scores.is_exact("a = 1\n  b = 2", "a = 1\n b = 2")
    assert scores.has_first_line("a = 1\nb", "  a = 1\nc")
