"""The completion benchmark: choice of spans, comparison, report, and the stage on a tiny model."""

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tasks.core.rows import row_schema
from tasks.core.rows.data_card import DataCard, Split
from tasks.core.settings.evaluate import EvaluateSettings
from tasks.core.text.special_tokens import FIM_TOKENS
from tasks.evaluation.completion.choose import IN_TRAINING, choose
from tasks.evaluation.completion.documents import held_out_files, read
from tasks.evaluation.completion.measure import NO_SUFFIX
from tasks.evaluation.completion.span_results import CompletionResult, SpanCompletion
from tasks.evaluation.gate import stored_evaluations, verdict
from tasks.evaluation.metrics import summary
from tasks.evaluation.report import files, page
from tasks.evaluation.report.other_stages import OtherStages
from tasks.evaluation.results import Evaluation
from tests.unit.evaluation.conftest import EOS, VOCABULARY, RunStage

SETTINGS = EvaluateSettings(completion_spans=3, max_new_tokens=100)


def function(name: str, number: int) -> str:
    return (
        f"def {name}_{number}(first_{name}, second_{name}):\n"
        f"    {name}_total = first_{name} + {number}\n"
        f"    if {name}_total > second_{name}:\n"
        f"        {name}_total = second_{name} * {number}\n"
        f"        {name}_total -= {number + 7}\n"
        f"    return {name}_total\n"
    )


def file(name: str) -> str:
    return "\n\n".join(function(name, number) for number in range(1, 5))


def row(kind: str, path: str, output: str, **others: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        field.name: 0 if pa.types.is_integer(field.type) else "" for field in row_schema.KEPT
    }
    row_id = f"{kind}-{path}-{others.get('line', 0)}"
    return empty | {
        "row_id": row_id,
        "kind": kind,
        "source": "own",
        "path": path,
        "output": output,
        "language": "python",
        "line": 1,
        **others,
    }


def inputs_of(
    folder: Path, test: list[dict[str, Any]], train: list[dict[str, Any]]
) -> dict[str, Path]:
    """Files of the stages before, where every file is its own unit of the split."""
    folder.mkdir(exist_ok=True)
    kept = pa.Table.from_pylist([*test, *train], schema=row_schema.KEPT)
    pq.write_table(kept, folder / "kept.parquet")
    for name, rows in (("test", test), ("train", train)):
        records = [
            dict.fromkeys(row_schema.PROMPTS.names, "")
            | {"row_id": r["row_id"], "project": r["project"] or r["path"]}
            for r in rows
        ]
        table = pa.Table.from_pylist(records, schema=row_schema.PROMPTS)
        pq.write_table(table, folder / f"{name}.parquet")
    DataCard((Split("train", 1, 1, unit="file"),)).write(folder / "data_card.json")
    return {
        "filter.kept": folder / "kept.parquet",
        "tokenize.data_card": folder / "data_card.json",
        "prompt.test": folder / "test.parquet",
        "prompt.train": folder / "train.parquet",
    }


NAMES = [f"thing{letter}" for letter in "abcdefgh"]


# --- choice ----------------------------------------------------------------------------------


def test_spans_come_from_the_held_out_files_in_turn(tmp_path: Path) -> None:
    test = [row("file", f"{name}.py", file(name)) for name in NAMES]
    inputs = inputs_of(tmp_path, test, [row("file", "other.py", file("other"))])
    found = choose(SETTINGS, inputs)
    assert len(found.spans) == 4 * SETTINGS.completion_spans
    assert found.missing == ""
    statements = [span.source.path for span in found.spans if span.size == "statement"]
    assert len(set(statements)) == len(statements)
    assert found == choose(SETTINGS, inputs)


def test_spans_that_a_training_row_contains_are_left_out_and_counted(tmp_path: Path) -> None:
    test = [row("file", f"{name}.py", file(name)) for name in NAMES]
    fill = {"prefix": file(NAMES[1])[:100], "middle": file(NAMES[1])[100:150], "suffix": ""}
    whole = fill | {"suffix": file(NAMES[1])[150:]}
    train = [
        # a copy in which a seventh of each function is another, and one with a hole in it
        row("file", "copy.py", re.sub(r" -= \d+", " -= 1000", file(NAMES[0]))),
        row("fill", "hole.py", "", conversation=json.dumps({"fill": whole})),
    ]
    settings = SETTINGS.model_copy(update={"completion_spans": 40})
    before = choose(settings, inputs_of(tmp_path / "before", test, []))
    after = choose(settings, inputs_of(tmp_path / "after", test, train))
    assert {s.source.path for s in before.spans} >= {f"{name}.py" for name in NAMES[:2]}
    copied = [s for s in before.spans if s.source.path in {f"{name}.py" for name in NAMES[:2]}]
    left = [s for s in copied if s in after.spans]
    assert all("-=" in span.reference for span in left)
    assert not any(span.source.path == f"{NAMES[1]}.py" for span in left)
    assert after.left_out[IN_TRAINING] >= len(copied) - len(left) > 0
    assert before.left_out[IN_TRAINING] == 0


def test_too_little_held_out_code_is_said_with_both_numbers(tmp_path: Path) -> None:
    few = [row("file", f"{name}.py", file(name)) for name in NAMES[:2]]
    found = choose(SETTINGS, inputs_of(tmp_path / "few", few, []))
    assert re.match(
        r"Completion: \d+ spans of 2 held-out files; at least 6 files can", found.missing
    )
    assert found.spans  # still measured
    none = choose(SETTINGS, inputs_of(tmp_path / "none", [], few))
    assert none.missing.startswith("Completion: 0 of 2 rows of code are in the test split.")
    chats = choose(SETTINGS, inputs_of(tmp_path / "chats", [row("instruction", "a", "Hello.")], []))
    assert (chats.spans, chats.missing) == ((), "")


def test_windows_of_a_file_are_one_text_again(tmp_path: Path) -> None:
    text = file("shop")
    at = text.index("def shop_3")
    lines = text[:at].count("\n")
    windows = [
        row("file", "shop.py", text[at:], line=lines + 1),
        row("file", "shop.py", text[:at].strip("\n") + "\n", line=1, instruction=""),
    ]
    inputs = inputs_of(tmp_path, windows, [])
    kept, test = inputs["filter.kept"], inputs["prompt.test"]
    (found,) = read(kept, test, held_out_files(kept, test)[0]).values()
    assert [part.text for part in found] == [text]


def test_a_file_is_given_with_the_files_that_it_needs_which_count_as_untrained(
    tmp_path: Path,
) -> None:
    needed = {"repository": "shop", "files": [["b.py", "B = 1\n"]], "comment": "#", "path": "a.py"}
    packed = json.dumps({"context": needed | {"before": "", "output": file("a")}})
    test = [row("context", "a.py", file("a"), conversation=packed)]
    train = [row("context", "c.py", "C = 2\n", instruction=file("a"), conversation=packed)]
    inputs = inputs_of(tmp_path, test, train)
    kept = inputs["filter.kept"]
    ((found,),) = read(kept, inputs["prompt.test"], [("a.py", "own", "a.py")]).values()
    assert found.head == "\0repository:shop\0\0file:#:b.py\0B = 1\n\0file:#:a.py\0"
    assert choose(SETTINGS, inputs).left_out[IN_TRAINING] == 0


def test_a_function_is_given_with_its_documentation_as_a_comment(tmp_path: Path) -> None:
    own = row("function", "a.py", function("a", 1), instruction="Adds it.\nTwice.\n\ndef a_1(x):")
    inputs = inputs_of(tmp_path, [own], [])
    kept, test = inputs["filter.kept"], inputs["prompt.test"]
    ((found,),) = read(kept, test, held_out_files(kept, test)[0]).values()
    assert (found.head, found.text) == ("# Adds it.\n# Twice.\n", function("a", 1))


# --- comparison ------------------------------------------------------------------------------


def completions(
    gain: float, clusters: int = 12, each: int = 4, seed: int = 0
) -> tuple[CompletionResult, ...]:
    """Spans whose edit similarity rises by about `gain`."""
    draw = random.Random(seed)
    found = []
    for number in range(clusters * each):
        base = draw.uniform(0.3, 0.6)
        tuned = min(1.0, max(0.0, base + gain + draw.gauss(0, 0.05)))
        found.append(
            CompletionResult(
                span_id=f"own/{number}.py@7 statement",
                cluster=f"{number % clusters}.py",
                language="python" if number % 2 else "javascript",
                size="statement",
                style="left context",
                prompt="def f(x):",
                reference="return x",
                text_bytes=9,
                base=SpanCompletion("return y", 3, True, False, base, False, 9 * (1 - base)),
                tuned=SpanCompletion(
                    "return x", 3, True, tuned > 0.8, tuned, tuned > 0.8, 9 * (1 - tuned)
                ),
            )
        )
    return tuple(found)


def decide(found: tuple[CompletionResult, ...]) -> verdict.Gate:
    return verdict.decide(Evaluation((), completions=found), resamples=500)


def test_a_gain_in_completion_is_an_improvement_and_the_first_reason() -> None:
    gate = decide(completions(0.3))
    assert gate.verdict == "improved"
    assert gate.reasons[0].startswith("Edit similarity on completion, left context is better")
    assert [c.name for c in gate.comparisons] == [
        "edit similarity",
        "exact match",
        "first-line match",
        "bits per byte",
    ]
    assert {c.unit for c in gate.comparisons} == {"projects"}
    assert {c.units for c in gate.comparisons} == {12}


def test_no_gain_in_completion_is_inconclusive_and_the_detectable_change_is_stated() -> None:
    gate = decide(completions(0.0))
    assert gate.verdict == "inconclusive"
    assert any(
        "completion, left context: with 12 projects, a true change of edit similarity" in note
        for note in gate.notes
    )


def test_worse_completion_is_a_regression() -> None:
    gate = decide(completions(-0.2))
    assert gate.verdict == "regressed"
    assert "Edit similarity on completion, left context is worse" in gate.reasons[0]


def test_spans_of_few_files_claim_nothing_however_large_the_gain() -> None:
    gate = decide(completions(0.4, clusters=5, each=20))
    assert gate.verdict == "inconclusive"
    assert any("5 projects can't show a difference" in reason for reason in gate.reasons)


def test_two_models_that_write_the_same_are_not_compared_with_certainty() -> None:
    same = tuple(replace(found, tuned=found.base) for found in completions(0.1))
    gate = decide(same)
    assert gate.verdict == "inconclusive"
    assert {c.p for c in gate.comparisons} == {1.0}
    assert gate.comparisons[0].low is None


def test_a_challenger_is_compared_with_the_champion_on_the_spans_of_both() -> None:
    old, new = (
        files.completion_records(Evaluation((), completions=completions(gain)))
        for gain in (0.1, 0.4)
    )
    joined = stored_evaluations.join_completions(old, new[4:])
    assert len(joined) == 46
    assert joined[0].base == completions(0.1)[2].tuned
    assert joined[0].tuned == completions(0.4)[2].tuned


# --- report ----------------------------------------------------------------------------------

HOSTILE = "</pre><script>alert(1)</script>```"


def test_the_report_has_sizes_languages_and_the_clearest_changes_as_diffs() -> None:
    measured = Evaluation(
        (), completions=completions(0.3), spans_left_out={IN_TRAINING: 17, "unused": 0}
    )
    gate = verdict.decide(measured, resamples=200)
    for text in (
        page.html(measured, gate, OtherStages()),
        page.markdown(measured, gate, OtherStages()),
    ):
        assert "Completion of held-out code" in text
        assert "JavaScript" in text
        assert "17 spans that are in the training data" in text
        assert "- return x" in text
        assert "+ return y" in text
        assert "unused" not in text
        assert "Smallest change that would be found four times in five: edit similarity" in text


def test_text_of_a_completion_is_never_markup() -> None:
    hostile = tuple(
        replace(found, prompt=HOSTILE, base=replace(found.base, text=HOSTILE))
        for found in completions(0.3)
    )
    measured = Evaluation((), completions=hostile)
    gate = verdict.decide(measured, resamples=200)
    assert "<script>" not in page.html(measured, gate, OtherStages())
    markdown = page.markdown(measured, gate, OtherStages())
    assert not re.search(r"^```$\n+^</pre>", markdown, re.MULTILINE)


def test_metrics_hold_every_style_size_and_language() -> None:
    numbers = summary.metrics(Evaluation((), completions=completions(0.3)))["completion"]
    found = numbers["left context"]
    assert found["spans"] == 48
    assert found["projects"] == 12
    assert set(found["by_language"]) == {"python", "javascript"}
    assert set(found["by_size"]) == {"statement"}
    for who in ("base", "tuned"):
        assert set(found[who]) == {
            "edit_similarity",
            "exact_match",
            "first_line_match",
            "bits_per_byte",
        }


# --- the stage -------------------------------------------------------------------------------


def tokenizer_with_infilling(folder: Path) -> Path:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[EOS, *FIM_TOKENS[0]],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([file("add")], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=EOS,
        eos_token=EOS,
        additional_special_tokens=list(FIM_TOKENS[0]),
    )
    fast.save_pretrained(folder)
    return folder


@pytest.fixture
def code(inputs: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """Held-out files beside the rows of `inputs`."""
    test = [row("file", f"{name}.py", file(name)) for name in NAMES]
    made = inputs_of(tmp_path / "code", test, [])
    prompts = pa.concat_tables(
        [pq.read_table(inputs["prompt.test"]), pq.read_table(made["prompt.test"])]
    )
    pq.write_table(prompts, made["prompt.test"])
    return made


COMPLETION = {"completion_spans": 2, "completion_context": 200, "max_new_tokens": 24}


def test_the_stage_completes_spans_with_left_context_alone_where_the_base_can_not_fill(
    run_stage: RunStage, code: dict[str, Path]
) -> None:
    done, out = run_stage(changed=code, **COMPLETION)
    rows = pq.read_table(out / "completions.parquet").to_pylist()
    assert {r["style"] for r in rows} == {"left context"}
    assert len(rows) == 2 * len({r["span_id"] for r in rows})
    assert all(r["loss_sum"] > 0 and r["text_bytes"] > 0 for r in rows)
    assert done.line.startswith("completion left context: edit similarity ")
    assert done.metrics["tuned_edit_similarity_left_context"] >= 0
    assert NO_SUFFIX in (out / "metrics.json").read_text()


def test_the_stage_completes_spans_with_the_suffix_where_the_base_can_fill(
    run_stage: RunStage, code: dict[str, Path], tmp_path: Path
) -> None:
    can_fill = tokenizer_with_infilling(tmp_path / "infilling")
    _, out = run_stage(changed=code | {"base.tokenizer": can_fill}, **COMPLETION)
    rows = pq.read_table(out / "completions.parquet").to_pylist()
    styles = {
        style: [r for r in rows if r["style"] == style] for style in ("left context", "with suffix")
    }
    assert [r["span_id"] for r in styles["left context"]] == [
        r["span_id"] for r in styles["with suffix"]
    ]
    assert all("\0fim_suffix\0" in r["prompt"] for r in styles["with suffix"])
    assert NO_SUFFIX not in (out / "metrics.json").read_text()


def test_the_suffix_comes_first_where_the_setting_says_so(
    run_stage: RunStage, code: dict[str, Path], tmp_path: Path
) -> None:
    can_fill = tokenizer_with_infilling(tmp_path / "infilling")
    changed = code | {"base.tokenizer": can_fill}
    _, out = run_stage(changed=changed, fill_order="suffix_first", **COMPLETION)
    rows = pq.read_table(out / "completions.parquet").to_pylist()
    prompts = [r["prompt"] for r in rows if r["style"] == "with suffix"]
    assert prompts and all(p.startswith("\0fim_prefix\0\0fim_suffix\0") for p in prompts)


def test_a_span_keeps_its_completion_in_the_cache(
    run_stage: RunStage, code: dict[str, Path], tmp_path: Path
) -> None:
    _, first = run_stage("a", changed=code, cache=tmp_path / "memory", **COMPLETION)
    _, second = run_stage("b", changed=code, cache=tmp_path / "memory", **COMPLETION)
    assert "cached" in (second / "costs.json").read_text()
    for name in ("metrics.json", "completions.parquet"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
