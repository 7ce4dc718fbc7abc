"""Execution layer of decontamination: a function of the row passes a problem's tests.

Only functions that could be an answer are run: plain functions with as many arguments as the tests
pass, of rows that no other rule rejects. All problems of one arity are tried in one start of the
sandbox, because starting it is most of the cost. A match has the problem's behavior, not always its
text: a function that counts any items also passes tests for counting letters.
"""

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.decontamination.problem_index import Hit
from tasks.core.decontamination.problems import BenchmarkProblem
from tasks.core.languages.python.source import parse_python
from tasks.core.progress import report
from tasks.core.rows.hash_rank import hash_rank
from tasks.core.sandbox import TIMEOUT, Job, Limits, Outcome, Sandbox

if TYPE_CHECKING:
    from tasks.core.settings.filter import DecontaminationSettings

MAX_CHARACTERS = 20_000
PASSED = "passes the tests of "
IMPORTS = "import math, re, collections, itertools, functools, string\nfrom typing import *\n"
KNOWN = frozenset(dir(builtins)) | {"math", "re", "collections", "itertools", "functools", "string"}
# Trusted text: each problem's tests run in their own namespace; the first that passes is reported.
CHECKS = """
for problem_id, setup, tests in PROBLEMS:
    namespace = {{}}
    try:
        exec(setup, namespace)
        exec(tests, namespace)
        namespace["check"]({entry})
    except Exception:
        continue
    raise LookupError("{passed}" + problem_id)
"""


def find(
    batches: Iterable[pa.Table],
    passes: NDArray[np.bool_],
    problems: Sequence[BenchmarkProblem],
    settings: "DecontaminationSettings",
    workers: int,
) -> dict[int, Hit]:
    """{row number: the first problem whose tests a function of the row passes}.

    Args:
        batches: Rows with "row_id" and "output", in order.
        passes: Rows that are searched.
        problems: Those with tests are tried.
        settings: Whether functions are run, how many, and for how long each.
        workers: Programs that run at the same time.

    Raises:
        PipelineError: No sandbox works on this machine.
    """
    if not settings.execution:
        return {}
    by_arity: dict[int, list[BenchmarkProblem]] = {}
    for problem in problems:
        if problem.tests and problem.arity:
            by_arity.setdefault(problem.arity, []).append(problem)
    chosen = _choose(batches, passes, by_arity, settings.max_executions)
    if not chosen:
        return {}
    sandbox = Sandbox.best("unshare", Limits(), workers, "functions of rows run")
    timeout_s = settings.execution_timeout_s
    jobs = [
        make_job(program, entry, by_arity[arity], timeout_s) for _, program, entry, arity in chosen
    ]
    outcomes = sandbox.judge_all(jobs, lambda done: report("run functions", done, len(jobs)))
    hits = {}
    for (row, program, entry, arity), first in zip(chosen, outcomes, strict=True):
        outcome = first
        if first.status == TIMEOUT:
            outcome = _one_by_one(sandbox, program, entry, by_arity[arity], timeout_s)
        _, passed, problem_id = outcome.detail.partition(PASSED)
        if outcome.status == "wrong" and passed:
            hits[row] = Hit("execution", problem_id, 1.0, f"function {entry} passes its tests")
    return hits


def _one_by_one(
    sandbox: Sandbox,
    program: str,
    entry: str,
    problems: Sequence[BenchmarkProblem],
    timeout_s: float,
) -> Outcome:
    """The outcome of the first problem that a function passes, each in a separate run: the tests
    of one problem took all the time, and those after it were never tried."""
    jobs = [make_job(program, entry, [problem], timeout_s) for problem in problems]
    outcomes = sandbox.judge_all(jobs)
    return next((found for found in outcomes if PASSED in found.detail), outcomes[0])


def make_job(
    program: str, entry: str, problems: Sequence[BenchmarkProblem], timeout_s: float
) -> Job:
    """One function against the tests of several problems.

    The tests that pass raise an error, so the sandbox reports "wrong" with `PASSED` and the problem
    in the detail: its other results carry no text.
    """
    listed = [(problem.problem_id, problem.setup, problem.tests) for problem in problems]
    checks = CHECKS.format(entry=entry, passed=PASSED)
    return Job(IMPORTS + program, entry, checks, f"PROBLEMS = {listed!r}", timeout_s)


def _choose(
    batches: Iterable[pa.Table], passes: NDArray[np.bool_], arities: Collection[int], at_most: int
) -> list[tuple[int, str, str, int]]:
    """Row, program, function and arity of each run, in the order of the rows."""
    found: list[tuple[bytes, int, str, str, int]] = []
    start = 0
    for table in batches:
        outputs, row_ids = (table.column(n).to_pylist() for n in ("output", "row_id"))
        for i in np.flatnonzero(passes[start : start + len(table)]).tolist():
            rank = hash_rank(row_ids[i])
            found += [(rank, start + i, *rest) for rest in candidates(outputs[i], arities)]
        found = sorted(found)[:at_most]  # never holds more than will be run and one batch
        start += len(table)
    return [(row, *rest) for _, row, *rest in sorted(found, key=lambda item: item[1])]  # type: ignore[misc]


def candidates(output: str, arities: Collection[int]) -> Iterator[tuple[str, str, int]]:
    """Program, name and arity of the functions of an output that could be an answer."""
    if len(output) > MAX_CHARACTERS or "def " not in output:
        return
    source, _ = parse_python(output)
    for node in source.module.body if source else ():
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        spec = node.args
        plain = [*spec.posonlyargs, *spec.args]
        if (plain and plain[0].arg in ("self", "cls")) or any(d is None for d in spec.kw_defaults):
            continue
        for arity in range(max(1, len(plain) - len(spec.defaults)), len(plain) + 1):
            if source and arity in arities and not _unbound_names(source.module):
                yield output, node.name, arity
                break


def _unbound_names(tree: ast.Module) -> set[str]:
    """Names that neither the text nor `KNOWN` binds: such a function cannot run alone."""
    bound, used = set(KNOWN), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).partition(".")[0])
        elif isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.ExceptHandler
        ):
            bound.add(node.name or "")
    return used - bound
