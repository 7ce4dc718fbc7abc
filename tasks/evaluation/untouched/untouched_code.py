"""Untouched Python: HumanEval's prompts with their solutions, which are never trained on."""

from tasks.evaluation.problems import humaneval
from tasks.evaluation.untouched.protocol import ProbeTexts


def texts() -> dict[str, str]:
    """Problem id -> text.

    Raises:
        PipelineError: The data of HumanEval is not installed.
    """
    return {p.problem_id: p.prompt + p.solution for p in humaneval.load()}


UNTOUCHED_CODE = ProbeTexts("untouched code", texts)
