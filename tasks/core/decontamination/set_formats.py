"""Published formats of problem sets, rewritten to the fields of `set_fields`: MBPP, EvalPlus,
MultiPL-E and HumanEval-X.

The evaluation reads a line to pose and test the problem, the filter to keep it out of the training
data; both see the same fields. To add a format, add a function to `FORMATS` that returns None for a
line of another one. Uses the standard library alone, because `finetune plan` reads these files.
"""

import ast
from collections.abc import Callable, Mapping
from typing import Any

Line = Mapping[str, Any]

# the checks of EvalPlus: inputs, whose results are those of the reference solution
_AGAINST_REFERENCE = """
import copy
import math

_reference = {{}}
exec({program!r}, _reference)


def _same(found, expected, tolerance):
    if isinstance(expected, float) and isinstance(found, (int, float)):
        close = math.isclose(found, expected, rel_tol=1e-7, abs_tol=tolerance or 1e-6)
        return close or found == expected or (found != found and expected != expected)
    if isinstance(expected, (list, tuple)) and isinstance(found, (list, tuple)):
        pairs = zip(found, expected)
        alike = type(found) == type(expected) and len(found) == len(expected)
        return alike and all(_same(f, e, tolerance) for f, e in pairs)
    return found == expected


def check(candidate):
    for given in {inputs!r}:
        expected = _reference[{entry!r}](*copy.deepcopy(given))
        assert _same(candidate(*copy.deepcopy(given)), expected, {tolerance!r}), given
"""


def standard(raw: Line) -> Line:
    """A line in the fields of `set_fields`; one of no known format as it is."""
    return next((found for read in FORMATS if (found := read(raw)) is not None), raw)


def mbpp(raw: Line) -> Line | None:
    """MBPP (Austin et al. 2021), both files: a task in words, a program, and asserts.

    The prompt ends with the first assert, which names the function, as in EvalPlus.
    """
    tests = raw.get("test_list")
    if not isinstance(tests, list) or not tests or not isinstance(raw.get("code"), str):
        return None
    task = str(raw.get("text") or raw.get("prompt") or "")
    setup = raw.get("test_setup_code") or "\n".join(raw.get("test_imports") or ())
    asserts = "\n".join(map(str, [*tests, *(raw.get("challenge_test_list") or ())]))
    return {
        "task_id": f"MBPP/{raw['task_id']}" if raw.get("task_id") is not None else "",
        "prompt": f"{task}\n\nYour code should pass this test:\n\n{tests[0]}" if task else "",
        "entry_point": raw.get("entry_point") or _called(str(raw["code"]), str(tests[0])),
        "canonical_solution": raw["code"],
        "test": raw.get("test") or f"{setup}\n{asserts}".lstrip(),
    }


def evalplus(raw: Line) -> Line | None:
    """HumanEval+ and MBPP+ as EvalPlus releases them (Liu et al. 2023): inputs without results."""
    inputs = [*(raw.get("base_input") or ()), *(raw.get("plus_input") or ())]
    if not inputs or "test" in raw:
        return None
    program = f"{raw.get('prompt', '')}{raw.get('canonical_solution', '')}"
    checks = _AGAINST_REFERENCE.format(
        program=program,
        inputs=inputs,
        entry=str(raw.get("entry_point", "")),
        tolerance=float(raw.get("atol") or 0),
    )
    return {**raw, "test": checks}


def multipl_e(raw: Line) -> Line | None:
    """MultiPL-E (Cassano et al. 2022): HumanEval and MBPP in other languages. The tests follow the
    answer, which ends before the first stop word."""
    if not isinstance(raw.get("stop_tokens"), list) or not isinstance(raw.get("tests"), str):
        return None
    return {**raw, "task_id": raw.get("name", ""), "stop_words": raw["stop_tokens"]}


def humaneval_x(raw: Line) -> Line | None:
    """HumanEval-X (Zheng et al. 2023): HumanEval in other languages, named by the id."""
    language, slash, _ = str(raw.get("task_id", "")).partition("/")
    if not slash or "declaration" not in raw or language == "Python":
        return None
    # the tests in Go have their own imports
    return {**raw, "language": language, "test": f"{raw.get('test_setup') or ''}{raw.get('test')}"}


FORMATS: tuple[Callable[[Line], Line | None], ...] = (mbpp, evalplus, multipl_e, humaneval_x)


def _called(program: str, test: str) -> str:
    """The function of a program that a test calls; "" unknown."""
    try:
        defined = {n.name for n in ast.parse(program).body if isinstance(n, ast.FunctionDef)}
        calls = [n.func for n in ast.walk(ast.parse(test)) if isinstance(n, ast.Call)]
    except SyntaxError:
        return ""
    names = [call.id for call in calls if isinstance(call, ast.Name)]
    return next((name for name in names if name in defined), "")
