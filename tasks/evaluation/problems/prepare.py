"""What is going to be asked, got ready before any model is loaded: problems read and chosen, the
sandbox found, every problem's tests tried."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.progress import say
from tasks.core.sandbox import LADDER, Limits, Sandbox
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.metrics import infilling
from tasks.evaluation.metrics.infilling import Hole
from tasks.evaluation.problems import grading, humaneval, user_sets
from tasks.evaluation.problems.grading import Bench
from tasks.evaluation.problems.humaneval import Problem
from tasks.evaluation.problems.user_sets import Line


@dataclass(frozen=True)
class Ready:
    """What can be asked.

    Attributes:
        bench: Sandbox and problems with tests; None where nothing is to be run or can be.
        probe: Problems whose text is the forgetting probe.
        holes: Lines to fill in.
        answers: Sets with reference answers, by name.
        missing: A sentence for each thing that can't be measured.
    """

    bench: Bench | None = None
    probe: tuple[Problem, ...] = ()
    holes: tuple[Hole, ...] = ()
    answers: Mapping[str, list[Line]] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


def prepare(settings: EvaluateSettings, held_out: Path | None) -> Ready:
    """Get everything ready.

    Args:
        settings: What is asked for.
        held_out: File of the held-out functions with doctests; None: there is none.

    Raises:
        PipelineError: Something can't be run and `require_humaneval` is set, or a line of the
            user's own tests is wrong.
    """
    missing: list[str] = []
    known = _humaneval(settings, missing)
    chosen = humaneval.choose(known, settings.humaneval_problems, settings.seed)
    if held_out is not None:
        functions = humaneval.load_held_out(held_out)
        chosen += humaneval.choose(functions, settings.held_out_problems, settings.seed)
    answers = {}
    for own in settings.sets:
        lines = user_sets.read(own)
        if own.kind == "answers":
            answers[own.name] = lines
        else:
            chosen += humaneval.from_lines(own.name, lines)
    probe = humaneval.choose(known, settings.probe_problems, settings.seed)
    to_fill = humaneval.choose(known, settings.infilling_problems, settings.seed)
    return Ready(
        bench=_bench(settings, chosen, missing),
        probe=tuple(probe),
        holes=tuple(infilling.holes(to_fill, settings.seed)),
        answers=answers,
        missing=tuple(missing),
    )


def _humaneval(settings: EvaluateSettings, missing: list[str]) -> list[Problem]:
    """All of HumanEval's problems, if any is asked for and they are there."""
    asked = (
        settings.humaneval_problems,
        settings.probe_problems,
        settings.infilling_problems,
    )
    if all(count == 0 for count in asked):
        return []
    try:
        return humaneval.load()
    except PipelineError as error:
        what = "pass@1 on HumanEval and the loss on untouched code"
        _excuse(settings, what, error, missing)
        return []


def _bench(settings: EvaluateSettings, problems: list[Problem], missing: list[str]) -> Bench | None:
    """A tested bench; None where there is nothing to run, or no way to."""
    if not problems:
        return None
    try:
        limits = Limits(memory_mib=settings.test_memory_mib)
        sandbox = Sandbox.best(settings.min_sandbox, limits, settings.test_workers)
    except PipelineError as error:
        names = ", ".join(dict.fromkeys(problem.suite for problem in problems))
        _excuse(settings, f"pass@1 on {names}", error, missing)
        return None
    if sandbox.level != LADDER[0]:
        say(f"generated code runs under {sandbox.level}: {LADDER[0]} does not work here")
    droppable = {humaneval.HELD_OUT}
    try:
        bench = grading.self_test(sandbox, problems, settings.test_timeout_s, droppable)
    except PipelineError as error:
        if not error.problem.startswith("HumanEval"):
            raise
        _excuse(settings, "pass@1 on HumanEval", error, missing)
        others = [problem for problem in problems if problem.suite != humaneval.SUITE]
        return _bench(settings, others, missing)
    if bench.left_out:
        missing.append(
            f"{len(bench.left_out)} held-out problems are left out, as they fail their own test: "
            f"{'; '.join(bench.left_out[:3])}."
        )
    return bench


def _excuse(
    settings: EvaluateSettings, what: str, error: PipelineError, missing: list[str]
) -> None:
    """Note what can't be measured, or stop where it has to be."""
    if settings.require_humaneval:
        raise error
    reason = f"{what} could not be measured: {error.problem}. {error.remedy}"
    missing.append(f"{reason} Then: finetune rerun evaluate")
