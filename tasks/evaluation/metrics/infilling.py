"""Fill-in-the-middle: one line of a known solution is taken out, and has to come back exactly.

Single-line infilling as in Bavarian et al. 2022, judged by exact match, on texts that are in no
training data: what a base model was taught and fine-tuning may undo. Only where the tokenizer has
the tokens for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.core.rows.hash_rank import keyed_rank
from tasks.core.text import prompt_templates
from tasks.evaluation.problems.humaneval import Problem

SUITE = "infilling"
_SHORTEST = 6  # characters; "else:" and "pass" would come back by chance


@dataclass(frozen=True)
class Hole:
    """A text with a line taken out.

    Attributes:
        problem_id: Of the text.
        prompt: The text with the hole, in the order prefix, suffix, with the tokenizer's marks.
        line: What was taken out.
    """

    problem_id: str
    prompt: str
    line: str


def holes(problems: Sequence[Problem], seed: int) -> list[Hole]:
    """A hole in each problem's solution: one of its lines that say something."""
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
            prompt = prompt_templates.fill_in(text, start, end)[0]
            found.append(Hole(problem.problem_id, prompt, text[start:end]))
    return found


def is_right(hole: Hole, text: str) -> bool:
    """Whether the line that was written is the one that was taken out."""
    return text.split("\n", 1)[0].strip() == hole.line
