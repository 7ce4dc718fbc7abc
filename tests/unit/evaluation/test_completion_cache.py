"""What a model wrote is not generated again: more problems, another scorer, a killed run."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks.core.cache.code_digest import closure
from tasks.core.cache.digest_cache import DigestCache
from tasks.core.sandbox import (
    PASS,
    RLIMITS,
    Outcome,
    Sandbox,
)
from tasks.evaluation import model_pair
from tasks.evaluation.generation import generate, stop_rules
from tasks.evaluation.generation.completion_cache import (
    GENERATION,
    LOADING,
    CompletionCache,
    key_of,
)
from tasks.evaluation.problems import grading
from tasks.evaluation.problems.protocol import Problem
from tasks.evaluation.results import Attempt, ProblemResult

RunStage = Callable[..., tuple[Any, Path]]


@pytest.fixture
def generated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of prompts of each call of the generator."""
    counts: list[int] = []
    real = generate.generate

    def counted(model: Any, prompts: Any, **settings: Any) -> Any:
        counts.append(len(prompts))
        return real(model, prompts, **settings)

    monkeypatch.setattr(model_pair.generate, "generate", counted)
    return counts


def answers_set(path: Path, count: int) -> dict[str, Any]:
    rows = [{"prompt": f"Say {i}.", "answer": str(i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"sets": [{"name": "own", "path": str(path), "kind": "answers"}], "samples": 0}


def test_more_problems_generate_only_what_is_new(
    run_stage: RunStage, tmp_path: Path, generated: list[int]
) -> None:
    run_stage("a", memory=tmp_path / "m", **answers_set(tmp_path / "own.jsonl", 5))
    assert sum(generated) == 2 * 5
    _, second = run_stage("b", memory=tmp_path / "m", **answers_set(tmp_path / "own.jsonl", 8))
    assert sum(generated) == 2 * 8
    _, cold = run_stage("c", **answers_set(tmp_path / "own.jsonl", 8))
    for name in ("metrics.json", "gate.json", "generations.parquet"):
        assert (second / name).read_bytes() == (cold / name).read_bytes()


def test_another_gate_generates_nothing(
    run_stage: RunStage, tmp_path: Path, generated: list[int]
) -> None:
    run_stage("a", memory=tmp_path / "m", **answers_set(tmp_path / "own.jsonl", 3))
    before = sum(generated)
    gate = {"resamples": 300, "pass_margin_points": 9}
    run_stage("b", memory=tmp_path / "m", gate=gate, **answers_set(tmp_path / "own.jsonl", 3))
    assert sum(generated) == before


def test_another_scorer_judges_anew_and_generates_nothing(
    run_stage: RunStage, tmp_path: Path, generated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"prompt": "Give one.", "entry_point": "f", "test": "assert f() == 1"}
    (tmp_path / "own.jsonl").write_text(json.dumps(row) + "\n")
    own = {"name": "own", "path": str(tmp_path / "own.jsonl")}
    settings = {"sets": [own], "samples": 0, "min_sandbox": "rlimits", "test_timeout_s": 30.0}
    judged: list[int] = []
    run_all = Sandbox.run_all

    def counted(self: Sandbox, jobs: Any, *more: Any) -> Any:
        judged.append(len(jobs))
        return run_all(self, jobs, *more)

    monkeypatch.setattr(Sandbox, "run_all", counted)
    for name in ("a", "b"):
        run_stage(name, memory=tmp_path / "m", **settings)
    assert generated == [1, 1, 0, 0]
    assert judged[1] > 0
    assert judged[2:] == [1, 0]  # the self-test, and nothing new
    monkeypatch.setattr(grading, "maker", lambda reference: "changed code")
    run_stage("c", memory=tmp_path / "m", **settings)
    assert generated == [1, 1, 0, 0, 0, 0]
    assert judged[4:] == judged[:2]


def test_a_text_hangs_on_the_code_that_writes_and_ends_it_and_on_no_scorer() -> None:
    with DigestCache(None) as digests:
        made_by = [
            set(closure(code, digests)) for code in (GENERATION, stop_rules.FUNCTION, LOADING)
        ]
    assert "tasks.evaluation.generation.cuda_graph" in made_by[0]
    assert "tasks.core.models.loading" in made_by[2]
    assert "tasks.evaluation.generation.stop_rules" in made_by[1]
    scorers = ("tasks.evaluation.problems", "tasks.evaluation.metrics", "tasks.evaluation.gate")
    for modules in made_by:
        assert not [name for name in modules if name.startswith(scorers)]
        assert not [name for name in modules if name.startswith("tasks.core.sandbox")]


@pytest.mark.parametrize("changed", [{"max_new_tokens": 5}, {"dtype": "float16"}])
def test_other_decoding_or_another_load_is_another_text(
    run_stage: RunStage, tmp_path: Path, generated: list[int], changed: dict[str, Any]
) -> None:
    own = answers_set(tmp_path / "own.jsonl", 2)
    run_stage("a", memory=tmp_path / "m", **own)
    run_stage("b", memory=tmp_path / "m", **own, **changed)
    assert generated == [2, 2, 2, 2]


def test_another_adapter_leaves_the_base_s_texts(
    run_stage: RunStage, tmp_path: Path, generated: list[int], adapter: Path
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(adapter, other)
    (other / "note").write_text("another one")
    own = answers_set(tmp_path / "own.jsonl", 2)
    run_stage("a", memory=tmp_path / "m", **own)
    run_stage("b", changed={"train.adapter": other}, memory=tmp_path / "m", **own)
    assert generated == [2, 2, 0, 2]


def test_a_killed_run_goes_on_with_what_it_had_written(
    run_stage: RunStage, tmp_path: Path, generated: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = answers_set(tmp_path / "own.jsonl", 6)
    put, puts = CompletionCache.put, list[int]()

    def dying(self: CompletionCache, values: Any) -> None:
        put(self, values)
        puts.append(1)
        if len(puts) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(CompletionCache, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        run_stage("a", memory=tmp_path / "m", **own)
    monkeypatch.setattr(CompletionCache, "put", put)
    run_stage("b", memory=tmp_path / "m", **own)
    assert generated == [6, 2, 6]


def test_a_damaged_memory_costs_only_the_memory(
    run_stage: RunStage, tmp_path: Path, generated: list[int]
) -> None:
    own = answers_set(tmp_path / "own.jsonl", 2)
    run_stage("a", memory=tmp_path / "m", **own)
    for path in (tmp_path / "m").iterdir():
        path.write_bytes(b"no database" * 200)
    run_stage("b", memory=tmp_path / "m", **own)
    assert sum(generated) == 8


# --- outcomes ----------------------------------------------------------------------------------


class Counting(Sandbox):
    """Passes everything but what says "slow", and counts."""

    def __init__(self) -> None:
        super().__init__(RLIMITS)
        self.ran = 0

    def run_all(self, jobs: Any, done: Any = print) -> list[Outcome]:
        self.ran += len(jobs)
        return [Outcome("timeout" if "slow" in job.program else PASS, "", 0.1) for job in jobs]


def problem(checks: str = "def check(c):\n    assert c() == 1\n") -> Problem:
    return Problem("Toy/0", 'def one():\n    """ One. """\n', "one", "    return 1\n", checks)


def judge(
    sandbox: Sandbox, posed: Problem, cache: CompletionCache, tuned: str = "\n    return 1"
) -> None:
    bench = grading.TestedProblems(sandbox, (posed,), {posed.problem_id: 4.0})
    tried = [(Attempt(text, 3, True),) for text in ("\n    return 2", tuned)]
    result = ProblemResult("humaneval", "Toy/0", "completion", posed.prompt, *tried)
    grading.grade(bench, [result], caches={"base": cache, "tuned": cache})


def test_a_program_is_judged_once_as_long_as_its_tests_are_the_same(tmp_path: Path) -> None:
    sandbox, cache = Counting(), CompletionCache(tmp_path / "m.sqlite")
    judge(sandbox, problem(), cache)
    judge(sandbox, problem(), cache)
    assert sandbox.ran == 2
    judge(sandbox, problem("def check(c):\n    assert c() == 3\n"), cache)
    assert sandbox.ran == 4


def test_what_ran_out_of_time_is_tried_again(tmp_path: Path) -> None:
    sandbox, cache = Counting(), CompletionCache(tmp_path / "m.sqlite")
    for _ in range(2):
        judge(sandbox, problem(), cache, tuned="\n    return slow()")
    assert sandbox.ran == 2 + 1


def test_another_level_of_the_sandbox_judges_anew(tmp_path: Path) -> None:
    sandbox, cache = Counting(), CompletionCache(tmp_path / "m.sqlite")
    judge(sandbox, problem(), cache)
    sandbox.level = "bubblewrap"
    judge(sandbox, problem(), cache)
    assert sandbox.ran == 4


def test_keys_are_told_apart_by_every_part() -> None:
    keys = {key_of(prompt=[1, 2], how="a"), key_of(prompt=[1, 2], how="b"), key_of(prompt=[1])}
    assert len(keys) == 3


def test_without_a_file_nothing_is_remembered(tmp_path: Path) -> None:
    cache = CompletionCache(None)
    cache.put({"a": 1})
    assert cache.get(["a"]) == {}
    kept = CompletionCache(tmp_path / "deep" / "m.sqlite")
    kept.put({str(i): [i] for i in range(1200)})
    assert len(kept.get(str(i) for i in range(1200))) == 1200
    assert sqlite3.connect(tmp_path / "deep" / "m.sqlite").execute(
        "select count(*) from memory"
    ).fetchone() == (1200,)
