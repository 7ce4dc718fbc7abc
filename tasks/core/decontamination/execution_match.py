"""Fourth layer of decontamination: a row's function that passes a task's tests.

Only functions that could be an answer are run: a plain function with as many arguments as the task
calls it with, of a row that passes everything else. All tasks of one arity are tried in one start
of the sandbox, since starting it is most of what a run costs. What is found has the task's
behaviour, not always its text: counting the items of anything passes for counting letters.
"""

import ast
import builtins
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.core.decontamination.problems import Task, parse
from tasks.core.decontamination.text_match import Hit
from tasks.core.progress import report
from tasks.core.rows.hash_rank import hash_rank
from tasks.core.sandbox import Job, Limits, Sandbox

MAX_CHARACTERS = 20_000
PASSED = "passes the tests of "
IMPORTS = "import math, re, collections, itertools, functools, string\nfrom typing import *\n"
KNOWN = frozenset(dir(builtins)) | {"math", "re", "collections", "itertools", "functools", "string"}
# trusted text: each task's tests in a space of their own, the first that passes is told
CHECKS = """
for task_id, setup, tests in TASKS:
    space = {{}}
    try:
        exec(setup, space)
        exec(tests, space)
        space["check"]({entry})
    except Exception:
        continue
    raise LookupError("{passed}" + task_id)
"""


def find(
    batches: Iterable[pa.Table],
    passes: NDArray[np.bool_],
    tasks: Sequence[Task],
    settings: Mapping[str, Any],
    workers: int,
) -> dict[int, Hit]:
    """{row number: the first task whose tests a function of the row passes}.

    Args:
        batches: Rows, in order.
        passes: Rows that are looked at.
        tasks: Those with tests are tried.
        settings: The section `filter.decontamination`.
        workers: Programs that run at the same time.

    Raises:
        PipelineError: No sandbox works on this machine.
    """
    by_arity: dict[int, list[Task]] = {}
    for task in tasks:
        if task.tests and task.arity:
            by_arity.setdefault(task.arity, []).append(task)
    chosen = _choose(batches, passes, by_arity, settings["max_executions"])
    if not chosen:
        return {}
    timeout_s = settings["execution_timeout_s"]
    sandbox = Sandbox.best("unshare", Limits(), workers)
    jobs = [
        make_job(program, entry, by_arity[arity], timeout_s) for _, program, entry, arity in chosen
    ]
    outcomes = sandbox.run_all(jobs, lambda done: report("run functions", done, len(jobs)))
    hits = {}
    for (row, _, entry, _), outcome in zip(chosen, outcomes, strict=True):
        _, passed, task_id = outcome.detail.partition(PASSED)
        if outcome.verdict == "wrong" and passed:
            hits[row] = Hit("execution", task_id, 1.0, f"function {entry} passes its tests")
    return hits


def make_job(program: str, entry: str, tasks: Sequence[Task], timeout_s: float) -> Job:
    """One function against the tests of several tasks; passing some is the verdict "wrong", with
    `PASSED` and the task in the detail."""
    listed = [(task.task_id, task.setup, task.tests) for task in tasks]
    checks = CHECKS.format(entry=entry, passed=PASSED)
    return Job(IMPORTS + program, entry, checks, f"TASKS = {listed!r}", timeout_s)


def _choose(
    batches: Iterable[pa.Table], passes: NDArray[np.bool_], arities: Collection[int], at_most: int
) -> list[tuple[int, str, str, int]]:
    """Row, program, function and arity of what is run, in the order of the rows."""
    found: list[tuple[bytes, int, str, str, int]] = []
    start = 0
    for table in batches:
        outputs, row_ids = (table.column(n).to_pylist() for n in ("output", "row_id"))
        for i in np.flatnonzero(passes[start : start + len(table)]).tolist():
            rank = hash_rank(row_ids[i])
            found += [(rank, start + i, *rest) for rest in candidates(outputs[i], arities)]
        found = sorted(found)[:at_most]  # memory is bounded by what will be run
        start += len(table)
    return [(row, *rest) for _, row, *rest in sorted(found, key=lambda item: item[1])]  # type: ignore[misc]


def candidates(output: str, arities: Collection[int]) -> Iterator[tuple[str, str, int]]:
    """Program, name and arity of the functions of an output that could be an answer."""
    if len(output) > MAX_CHARACTERS or "def " not in output:
        return
    tree = parse(output)
    for node in tree.body if tree else ():
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        spec = node.args
        plain = [*spec.posonlyargs, *spec.args]
        if (plain and plain[0].arg in ("self", "cls")) or any(d is None for d in spec.kw_defaults):
            continue
        for arity in range(max(1, len(plain) - len(spec.defaults)), len(plain) + 1):
            if arity in arities and not _foreign_names(tree):
                yield output, node.name, arity
                break


def _foreign_names(tree: ast.Module | None) -> set[str]:
    """Names that neither the text nor the standard names bind: such a function can't run alone."""
    bound, used = set(KNOWN), set[str]()
    for node in ast.walk(tree) if tree else ():
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
