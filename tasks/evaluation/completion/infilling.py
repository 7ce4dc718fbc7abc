"""Single-line infilling (Bavarian et al. 2022) of HumanEval's solutions, graded by exact match.

It shows whether fine-tuning damages a base model's fill-in-the-middle training, on texts that are
in no training data. Measured only where the tokenizer has the control tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.text import prompt_templates
from tasks.evaluation.problems.protocol import Problem

SUITE = "infilling"
_SHORTEST = 6  # characters; "else:" and "pass" would be right by chance


@dataclass(frozen=True)
class InfillingProblem:
    """A text with one line masked.

    Attributes:
        problem_id: Of the text.
        prompt: Prefix and suffix of the masked line, with placeholders for control tokens.
        line: The masked line.
    """

    problem_id: str
    prompt: str
    line: str


def infilling_problems(
    problems: Sequence[Problem], seed: int, suffix_first: bool = False
) -> list[InfillingProblem]:
    """Mask one line of each problem's solution that is neither short nor a comment."""
    found = []
    for problem in problems:
        text = problem.prompt + problem.solution
        places = []
        at = len(problem.prompt)
        for line in problem.solution.splitlines(keepends=True):
            code = line.strip()
            if len(code) >= _SHORTEST and not code.startswith("#"):
                start = at + line.index(code)
                places.append((start, start + len(code)))
            at += len(line)
        if places:
            start, end = min(places, key=lambda p: keyed_rank(f"{problem.problem_id} {p[0]}", seed))
            prompt = prompt_templates.fill_in(text, start, end, suffix_first)[0]
            found.append(InfillingProblem(problem.problem_id, prompt, text[start:end]))
    return found


def is_right(line: str, text: str) -> bool:
    """Whether the first generated line is the masked one."""
    return text.split("\n", 1)[0].strip() == line
