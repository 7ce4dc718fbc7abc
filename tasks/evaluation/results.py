"""Results of an evaluation: plain values that pass from measuring to statistics, gate and report.

Each value holds base and tuned model together, because every comparison is paired.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.core.rows.data_card import Split
from tasks.core.rows.split_unit import PROJECT
from tasks.evaluation.completion.span_results import CompletionResult

HELD_OUT = "held-out"  # name of the row set of the test split
PASS = "pass"
WRONG = "wrong"
INFRA = "infra"  # the sandbox failed, not the model: counted, and left out of every share
NOT_JUDGED = "not judged"  # the test can't be run on any answer: counted, and left out as well
NOT_RUN = "not run: "  # how the reason begins where a tool is missing
COMPLETION, PROMPT = "completion", "prompt"  # styles that are graded by tests
INFILLING, ANSWER = "one line", "answer"
MATCHED = (INFILLING, ANSWER)  # styles that are graded by exact match
CUT_BY_RULE = (COMPLETION, INFILLING)  # styles whose answers a stop rule ends, not the model


@dataclass(frozen=True)
class RowResult:
    """Teacher-forced losses of one held-out row: its content, and the endings of its answers.

    Attributes:
        row_id: As in every table of the pipeline.
        cluster: Unit of the split; its rows are alike and count as one observation.
        tokens: Predicted tokens of the content that carry a label.
        text_bytes: UTF-8 bytes of the text of those tokens, for bits per byte; 0 unknown.
        base_loss_sum: Summed negative log-likelihood of the base in nats.
        tuned_loss_sum: The same with the adapter on.
        base_correct: Tokens whose argmax is right.
        tuned_correct: The same with the adapter on.
        ending_tokens: Labelled tokens of end markers and EOS, which `tokens` leaves out.
        base_ending_loss_sum: As base_loss_sum, of these.
        tuned_ending_loss_sum: As tuned_loss_sum, of these.
        base_ending_correct: As base_correct, of these.
        tuned_ending_correct: As tuned_correct, of these.
    """

    row_id: str
    cluster: str
    tokens: int
    text_bytes: int
    base_loss_sum: float
    tuned_loss_sum: float
    base_correct: int
    tuned_correct: int
    ending_tokens: int = 0
    base_ending_loss_sum: float = 0.0
    tuned_ending_loss_sum: float = 0.0
    base_ending_correct: int = 0
    tuned_ending_correct: int = 0


@dataclass(frozen=True)
class RowSet:
    """Rows measured under one name.

    Attributes:
        name: `HELD_OUT` (the test split), a kind of untouched texts (`untouched.registry`), or a
            user's set.
        rows: In the order of the data.
        probe: A worse loss means forgetting: guarded, and not expected to improve.
    """

    name: str
    rows: tuple[RowResult, ...]
    probe: bool = False


@dataclass(frozen=True)
class Attempt:
    """One generated text.

    Attributes:
        text: As generated, without the prompt and without the end marker.
        tokens: Generated tokens.
        stopped: Ended by itself (end marker or EOS) and not at the limit.
        outcome: pass, wrong, exception, syntax, timeout, oom, infra, not judged; ""
            where nothing was run.
        detail: One line about the failure, such as the exception's text; written by untrusted code.
    """

    text: str
    tokens: int
    stopped: bool
    outcome: str = ""
    detail: str = ""


Attempts = tuple[Attempt, ...]


@dataclass(frozen=True)
class ProblemResult:
    """One problem, attempted by both models.

    Attributes:
        suite: "humaneval", "held-out", "infilling" or the name of the user's set.
        problem_id: Unique within suite and style.
        style: `COMPLETION` (raw text), `PROMPT` (in the format of the training data), or one of
            `MATCHED`, where the answer is compared with the reference instead of run.
        prompt: Text that the model continued.
        base: Attempts of the base; all problems of one suite and style have the same number.
        tuned: Attempts with the adapter on.
        reference: What an answer is compared with; "" for problems with tests.
    """

    suite: str
    problem_id: str
    style: str
    prompt: str
    base: Attempts
    tuned: Attempts
    reference: str = ""


@dataclass(frozen=True)
class AnsweredPrompt:
    """One held-out prompt with both models' answers, for reading."""

    row_id: str
    prompt: str
    reference: str
    base: Attempt
    tuned: Attempt


@dataclass(frozen=True)
class Cost:
    """Cost of one part of the evaluation; kept out of metrics.json, which holds no times.

    Attributes:
        what: "loss", "generation", "tests" ...
        seconds: Wall time.
        tokens: Tokens processed or generated; 0 where the number means nothing.
        peak_memory_gib: Highest memory, on the GPU where there is one; None unknown.
    """

    what: str
    seconds: float
    tokens: int = 0
    peak_memory_gib: float | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Throughput; None where there are no tokens."""
        return self.tokens / self.seconds if self.tokens and self.seconds > 0 else None


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured in one load of the base model.

    Attributes:
        row_sets: Losses.
        problems: Problems with both models' attempts.
        completions: Spans of held-out code.
        spans_left_out: Spans that were drawn and not used, by reason.
        samples: Texts to read.
        splits: Data card of the splits.
        sandbox: Level that generated code ran under ("bwrap", "unshare" ...); "" nothing ran.
        not_measured: One sentence for each thing that could not be measured, with the reason.
        settings: What numbers depend on (decoding, batch size, seed ...), flat and JSON-ready.
        costs: Times and memory.
        unit_names: A name for the units of the split that are not named by a project: the path of
            a file instead of the id of a row.
    """

    row_sets: tuple[RowSet, ...]
    problems: tuple[ProblemResult, ...] = ()
    completions: tuple[CompletionResult, ...] = ()
    spans_left_out: Mapping[str, int] = field(default_factory=dict)
    samples: tuple[AnsweredPrompt, ...] = ()
    splits: tuple[Split, ...] = ()
    sandbox: str = ""
    not_measured: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    costs: tuple[Cost, ...] = ()
    unit_names: Mapping[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """The unit of the split: "project", "file" ..."""
        return self.splits[0].unit if self.splits else PROJECT


def by_suite(problems: Iterable[ProblemResult]) -> dict[tuple[str, str], list[ProblemResult]]:
    """Problems by (suite, style), in the order of their first appearance."""
    groups: dict[tuple[str, str], list[ProblemResult]] = {}
    for problem in problems:
        groups.setdefault((problem.suite, problem.style), []).append(problem)
    return groups


def graded(problems: Iterable[ProblemResult]) -> list[ProblemResult]:
    """Problems on which both models have an outcome; failures of the sandbox count for neither."""
    return [p for p in problems if counted(p.base) and counted(p.tuned)]


def counted(attempts: Iterable[Attempt]) -> Attempts:
    """The attempts that count: those with an outcome that the model is responsible for."""
    return tuple(a for a in attempts if a.outcome not in ("", INFRA, NOT_JUDGED))
