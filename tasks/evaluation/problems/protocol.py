"""The shape of a problem with tests and of a problem set.

A set is read into problems of one form (that of HumanEval, Chen et al. 2021), which are posed,
self-tested and graded alike, wherever they come from.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.core.rows.hash_rank import keyed_rank

if TYPE_CHECKING:
    from tasks.core.settings.evaluate import EvaluateSettings


@dataclass(frozen=True)
class Problem:
    """One problem with tests.

    Attributes:
        problem_id: Such as "HumanEval/0"; unique in an evaluation.
        prompt: Python text up to the end of the function's docstring; or words.
        entry: Name of the function.
        solution: A correct continuation of the prompt, or a correct answer to words; "" unknown.
        checks: Text that defines `check(candidate)`, or asserts that call the function.
        suite: The name that its results have in tables.
        in_words: The prompt is no code; the answer is the whole program.
        input: More of a prompt in words, for the template's input section.
        together: Run the checks in the answer's process; no protection from a faked pass.
        not_judged: Why no answer can be judged; "" it can.
        packages: Installed packages that answers and checks may import.
        trusted_prompt: The checks may run the prompt, for helpers that it defines.
        of_user: It is from a set of the user.
        language: Of prompt, answer and checks; a key of `tools.TOOLS`, "" for Python.
        stop_words: Texts before which an answer in such a language ends; (): where the block that
            the prompt opens is closed.
    """

    problem_id: str
    prompt: str
    entry: str
    solution: str
    checks: str
    suite: str = "humaneval"
    in_words: bool = False
    input: str = ""
    together: bool = False
    not_judged: str = ""
    packages: tuple[str, ...] = ()
    trusted_prompt: bool = True
    of_user: bool = False
    language: str = ""
    stop_words: tuple[str, ...] = ()

    @property
    def whole_solution(self) -> str:
        """A program that passes; "" unknown."""
        return self.solution if self.in_words or not self.solution else self.prompt + self.solution


def choose_problems(problems: Sequence[Problem], count: int | None, seed: int = 0) -> list[Problem]:
    """A fixed choice of `count` problems, in the order of the suite; None: all of them."""
    if count is None:
        return list(problems)
    ranked = sorted(problems, key=lambda p: keyed_rank(p.problem_id, seed))
    taken = {p.problem_id for p in ranked[:count]}
    return [p for p in problems if p.problem_id in taken]


class OnFailure(Enum):
    """What a failed self-test of a problem leads to."""

    STOP = "stop the evaluation"  # the user has to correct the set
    LEAVE_OUT_SET = "measure everything else, and report why"
    LEAVE_OUT_PROBLEM = "measure the others, and report which"


@dataclass(frozen=True)
class ProblemSet:
    """One source of problems with tests.

    Attributes:
        suite: Of its problems; "" where the user names the suites.
        title: In messages; "" where the user names the suites.
        measures: What can't be measured where the set can't be read.
        read: Settings and the file of held-out functions -> the problems to use; none if they are
            not selected. Raises PipelineError where they can't be read.
        on_failure: Of a problem's self-test.
        remedy: For a failed self-test.
    """

    suite: str
    title: str
    measures: str
    read: "Callable[[EvaluateSettings, Path | None], list[Problem]]"
    on_failure: OnFailure
    remedy: str
