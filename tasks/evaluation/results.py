"""What an evaluation found: plain values that pass from measuring to statistics, gate and report.

Base and tuned always stand side by side in one value, because every comparison is paired.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tasks.core.rows.data_card import Split

PASS = "pass"
WRONG = "wrong"
INFILLING, ANSWER = "one line", "answer"
MATCHED = (INFILLING, ANSWER)  # styles judged by exact match
INFRA = "infra"  # the sandbox failed, not the model: counted, and left out of every share


@dataclass(frozen=True)
class RowResult:
    """Teacher-forced losses of one held-out row.

    Attributes:
        row_id: As in every table of the pipeline.
        cluster: The project it comes from; rows are resampled by it, as its rows are alike.
        tokens: Tokens that were predicted and carry a label.
        text_bytes: UTF-8 bytes of the text behind those tokens, for bits per byte; 0 unknown.
        base_loss_sum: Summed negative log-likelihood of the base in nats.
        tuned_loss_sum: The same with the adapter on.
        base_correct: Tokens whose argmax is right.
        tuned_correct: The same with the adapter on.
    """

    row_id: str
    cluster: str
    tokens: int
    text_bytes: int
    base_loss_sum: float
    tuned_loss_sum: float
    base_correct: int
    tuned_correct: int


@dataclass(frozen=True)
class RowSet:
    """Rows measured under one name: "held-out" (our data), "untouched code" (the forgetting probe).

    Attributes:
        name: Shown in tables; unique within an evaluation.
        rows: In the order of the data.
        probe: True where a worse loss means forgetting; it is guarded, and not asked to improve.
    """

    name: str
    rows: tuple[RowResult, ...]
    probe: bool = False


@dataclass(frozen=True)
class Attempt:
    """One text that a model wrote.

    Attributes:
        text: As generated, without the prompt and without the end marker.
        tokens: Generated tokens.
        stopped: Ended by itself (`### End` or EOS) and not at the limit.
        verdict: pass, wrong, exception, syntax, timeout, oom, infra; "" where nothing was run.
        detail: One line about the failure, such as the exception's text; written by untrusted code.
    """

    text: str
    tokens: int
    stopped: bool
    verdict: str = ""
    detail: str = ""


@dataclass(frozen=True)
class ProblemResult:
    """One problem with tests, tried by both models.

    Attributes:
        suite: "humaneval", "held-out", "infilling" or the name of the user's set.
        problem_id: Unique within suite and style.
        style: "completion" (raw text), "prompt" (in the training's own format), or one of
            `MATCHED`, where there are no tests and the answer is compared with the reference.
        prompt: Text that the model continued.
        base: Attempts of the base; all problems of one suite and style have the same number.
        tuned: Attempts with the adapter on.
        reference: What an answer is compared with; "" where tests judge.
    """

    suite: str
    problem_id: str
    style: str
    prompt: str
    base: tuple[Attempt, ...]
    tuned: tuple[Attempt, ...]
    reference: str = ""


@dataclass(frozen=True)
class Sample:
    """One held-out prompt answered by both models, for reading."""

    row_id: str
    prompt: str
    reference: str
    base: Attempt
    tuned: Attempt


@dataclass(frozen=True)
class Cost:
    """What one part of the evaluation took; stays out of metrics.json, which no clock may change.

    Attributes:
        what: "loss", "generation", "tests" ...
        seconds: Wall time.
        tokens: Tokens processed or generated; 0 where that says nothing.
        peak_memory_gib: Highest memory, on the GPU where there is one; None unknown.
    """

    what: str
    seconds: float
    tokens: int = 0
    peak_memory_gib: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Everything that was measured in one load of the base model.

    Attributes:
        row_sets: Losses.
        problems: Problems with tests.
        samples: Texts to read.
        splits: Data card; what is known of the splits.
        sandbox: Level that generated code ran under ("bwrap", "unshare" ...); "" where nothing ran.
        not_measured: One sentence for each thing that could not be measured, with the reason.
        settings: What numbers depend on (decoding, batch size, seed ...), flat and JSON-ready.
        costs: Times and memory.
    """

    row_sets: tuple[RowSet, ...]
    problems: tuple[ProblemResult, ...] = ()
    samples: tuple[Sample, ...] = ()
    splits: tuple[Split, ...] = ()
    sandbox: str = ""
    not_measured: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    costs: tuple[Cost, ...] = ()


def to_dict(evaluation: Evaluation) -> dict[str, Any]:
    """JSON-ready values of a whole evaluation."""
    return asdict(evaluation)


def from_dict(raw: Mapping[str, Any]) -> Evaluation:
    """The evaluation that `to_dict` was given."""
    return Evaluation(
        row_sets=tuple(
            RowSet(s["name"], tuple(RowResult(**row) for row in s["rows"]), s["probe"])
            for s in raw["row_sets"]
        ),
        problems=tuple(ProblemResult(**{**p, **_both(p)}) for p in raw["problems"]),
        samples=tuple(
            Sample(**{**s, "base": Attempt(**s["base"]), "tuned": Attempt(**s["tuned"])})
            for s in raw["samples"]
        ),
        splits=tuple(Split(**split) for split in raw["splits"]),
        sandbox=raw["sandbox"],
        not_measured=tuple(raw["not_measured"]),
        settings=dict(raw["settings"]),
        costs=tuple(Cost(**cost) for cost in raw["costs"]),
    )


def _both(problem: Mapping[str, Any]) -> dict[str, tuple[Attempt, ...]]:
    return {who: tuple(Attempt(**a) for a in problem[who]) for who in ("base", "tuned")}
