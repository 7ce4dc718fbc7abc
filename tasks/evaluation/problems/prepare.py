"""What will be measured, prepared before a model is loaded: problems are read and self-tested."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tasks.core.errors import PipelineError
from tasks.core.sandbox import Limits, Sandbox
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.evaluation.completion import infilling
from tasks.evaluation.completion.choose import ChosenSpans
from tasks.evaluation.completion.infilling import InfillingProblem
from tasks.evaluation.problems import humaneval, user_sets
from tasks.evaluation.problems.grading import TestedProblems
from tasks.evaluation.problems.humaneval import HUMANEVAL
from tasks.evaluation.problems.protocol import OnFailure, Problem, ProblemSet, choose_problems
from tasks.evaluation.problems.registry import PROBLEM_SETS, set_of
from tasks.evaluation.problems.self_test import SelfTestError, self_test
from tasks.evaluation.problems.user_sets import SetLine
from tasks.evaluation.untouched.registry import choose_texts


@dataclass(frozen=True)
class Prepared:
    """What can be measured beside held-out rows.

    Attributes:
        tested: Problems with tests and the sandbox; None where none are used or can be run.
        probes: Untouched texts that show forgetting: kind -> text id -> text.
        infilling: Lines to fill in.
        answers: Sets with reference answers, by name.
        completion: Spans of held-out code to complete.
        missing: A sentence for each thing that can't be measured.
    """

    tested: TestedProblems | None = None
    probes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    infilling: tuple[InfillingProblem, ...] = ()
    answers: Mapping[str, list[SetLine]] = field(default_factory=dict)
    completion: ChosenSpans = field(default_factory=ChosenSpans)
    missing: tuple[str, ...] = ()


def prepare(settings: EvaluateSettings, held_out: Path | None) -> Prepared:
    """Read, choose and self-test everything that the settings select.

    Args:
        settings: Of the stage.
        held_out: File of the held-out functions with doctests; None: there is none.

    Raises:
        PipelineError: Something can't be run and `require_humaneval` is set, or a line of the
            user's own tests is wrong.
    """
    missing: list[str] = []
    problems: list[Problem] = []
    for source in PROBLEM_SETS:
        problems += _read(source, settings, missing, partial(source.read, settings, held_out))
    texts: list[Problem] = []
    if settings.infilling_problems != 0:
        texts = _read(HUMANEVAL, settings, missing, humaneval.load)
    probes, unreadable = choose_texts(settings.probe_problems, settings.seed)
    missing += unreadable
    to_fill = choose_problems(texts, settings.infilling_problems, settings.seed)
    suffix_first = settings.fill_order == "suffix_first"
    holes = infilling.infilling_problems(to_fill, settings.seed, suffix_first)
    return Prepared(
        tested=_tested(settings, problems, missing),
        probes=probes,
        infilling=tuple(holes),
        answers={s.name: user_sets.read(s) for s in settings.sets if s.kind == "answers"},
        missing=tuple(dict.fromkeys(missing)),
    )


def _read(
    source: ProblemSet,
    settings: EvaluateSettings,
    missing: list[str],
    read: Callable[[], list[Problem]],
) -> list[Problem]:
    """The problems of a set; none where it can't be read and may be left out."""
    try:
        return read()
    except PipelineError as error:
        if source.on_failure == OnFailure.STOP:
            raise
        _leave_out(settings, source.measures, error, missing)
        return []


def _tested(
    settings: EvaluateSettings, problems: Sequence[Problem], missing: list[str]
) -> TestedProblems | None:
    """Self-tested problems; None where there are none or no sandbox works."""
    if not problems:
        return None
    try:
        limits = Limits(memory_mib=settings.test_memory_mib)
        sandbox = Sandbox.best(
            settings.min_sandbox, limits, settings.test_workers, "generated code runs"
        )
    except PipelineError as error:
        names = ", ".join(dict.fromkeys(problem.suite for problem in problems))
        _leave_out(settings, f"pass@1 on {names}", error, missing)
        return None
    try:
        tested = self_test(sandbox, problems, settings.test_timeout_s)
    except SelfTestError as error:
        source = set_of(error.suite)
        if source.on_failure == OnFailure.STOP:
            raise
        _leave_out(settings, f"pass@1 on {source.title}", error, missing)
        return _tested(settings, [p for p in problems if p.suite != error.suite], missing)
    if tested.left_out:
        missing.append(
            f"{len(tested.left_out)} held-out problems are left out, as they fail their own test: "
            f"{'; '.join(tested.left_out[:3])}."
        )
    return tested


def _leave_out(
    settings: EvaluateSettings, what: str, error: PipelineError, missing: list[str]
) -> None:
    """Note what can't be measured, or stop where it is required."""
    if settings.require_humaneval:
        raise error
    reason = f"{what} could not be measured: {error.problem}. {error.remedy}"
    missing.append(f"{reason} Then: finetune rerun evaluate")
