"""Traps that were measured in other tools of this kind, each tried on the real stages.

Three more have tests where they belong: words around a copied benchmark task that hide it, and
twins that stay or fall where the true similarity is not looked at (unit/filtering); two models in
production at a time (unit/core/test_champion.py).
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from flows.plan_notes.forecast import forecast
from flows.session import Request, open_session
from tasks.core.cache import code_digest
from tasks.core.cache.decision import HIT, Selection
from tasks.core.cache.execute import RunContext, execute
from tasks.core.models import memory_probes
from tasks.core.models.packed_dataset import Windows
from tasks.evaluation.gate import verdict as gate
from tasks.filtering import run as filtering_run
from tasks.filtering import score_rows
from tasks.tokenization import encode
from tasks.tokenization import run as tokenization_run
from tests.unit.evaluation.examples import evaluation, problems
from tests.unit.flows import test_forecast

STAGES = ("base", "ingest", "filter", "prompt", "tokenize")


def row(number: int, answer: str = "") -> dict[str, str]:
    return {
        "instruction": f"Say what thing number {number} is.",
        "output": answer or f"thing_{number} = {number} * {number + 1}",
        "project": f"p{number}",
    }


class Home:
    """A home with one file of rows, and the stages up to the tokens of it."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.rows = folder / "rows.jsonl"
        self.profile = folder / "mine.yaml"
        source = f"{{kind: files, path: {self.rows}, licence: MIT, columns: {{project: project}}}}"
        self.profile.write_text(
            f"base: {{path: {model}, licence: Apache-2.0}}\n"
            f"ingest: {{sources: [{source}]}}\n"
            "filter: {near_duplicates: {enabled: false}}\n"
            "prompt: {validation_share: 0.2, test_share: 0.2}\n"
            "tokenize: {min_characters_per_token: 0, window_tokens: 1024}\n"
        )
        self.write([row(number) for number in range(60)])

    def write(self, rows: list[dict[str, str]]) -> None:
        self.rows.write_text("".join(json.dumps(r) + "\n" for r in rows))

    def run(self) -> tuple[list[str], str]:
        """Names of the stages that ran, and the text of all tokens that would be trained on."""
        ran = []
        with open_session(Request(str(self.profile), (), Selection(STAGES))) as session:
            for name in session.planner.selected:
                plan = session.planner.plan_stage(name)
                manifest = plan.manifest
                if plan.decision != HIT:
                    ran.append(name)
                    made = session.planner.artifacts
                    manifest = execute(plan, RunContext(session.config, session.store, made))
                session.planner.add_artifact(manifest)
            folders = {
                n: session.store.folder(n, m.key) for n, m in session.planner.artifacts.items()
            }
        tokenizer = Tokenizer.from_file(str(folders["base"] / "tokenizer" / "tokenizer.json"))
        windows = Windows.open(folders["tokenize"] / "train").rows()
        return ran, "\n".join(tokenizer.decode(w.input_ids.tolist()) for w in windows)


@pytest.fixture
def home(tiny_model, tmp_path, monkeypatch) -> Home:
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    return Home(tmp_path, tiny_model)


@pytest.fixture
def looked_at(monkeypatch) -> dict[str, int]:
    """Rows that filter judges and tokenize encodes, each time they do."""
    counts = {"judged": 0, "encoded": 0}

    def judge(batch: score_rows.RowsToScore) -> Any:
        counts["judged"] += len(batch.rows)
        return score_rows.score_rows(batch)

    def encode_batch(batch: encode.PromptBatch) -> Any:
        counts["encoded"] += len(batch.rows)
        return encode.encode_batch(batch)

    monkeypatch.setattr(filtering_run, "score_rows", judge)
    monkeypatch.setattr(tokenization_run, "encode_batch", encode_batch)
    return counts


def test_an_edited_row_is_trained_on_as_it_is_now_though_size_and_time_are_the_same(home):
    ran, text = home.run()
    assert ran == list(STAGES) and "thing_46 = 46 * 47" in text
    before = home.rows.stat()
    home.write([row(n, "thing_46 = 99 * 99" if n == 46 else "") for n in range(60)])
    os.utime(home.rows, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert home.rows.stat().st_size == before.st_size
    ran, text = home.run()
    assert ran == ["ingest", "filter", "prompt", "tokenize"]
    assert "thing_46 = 99 * 99" in text and "thing_46 = 46 * 47" not in text


def test_an_unchanged_rerun_runs_nothing(home):
    home.run()
    assert home.run()[0] == []


def test_a_row_put_in_at_the_top_costs_one_row(home, looked_at):
    home.run()
    assert looked_at == {"judged": 60, "encoded": 60}
    home.write([row(99), *(row(n) for n in range(60))])
    ran, _ = home.run()
    assert "filter" in ran and looked_at == {"judged": 61, "encoded": 61}


def test_changed_code_of_a_rule_judges_every_row_again(home, looked_at, monkeypatch):
    home.run()
    real = code_digest.closure

    def changed(reference, digests, **_):
        found = real(reference, digests)
        return found | (
            {"tasks.filtering.rules.line_length": {"x": "x"}}
            if "tasks.filtering.rules.line_length" in found
            else {}
        )

    monkeypatch.setattr("tasks.core.cache.cache_key.closure", changed)
    ran, _ = home.run()
    assert ran == ["filter"] and looked_at == {"judged": 120, "encoded": 60}


def test_one_problem_more_of_a_thousand_is_no_improvement():
    half = evaluation(held_out=0.0, tried=problems(won=1, lost=0, both=500, none=499))
    assert gate.decide(half, resamples=500).verdict == "inconclusive"


STABLE_CODE_3B = {
    "hidden_size": 2560,
    "intermediate_size": 6912,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 50_304,
}
SMOLLM2_135M = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "vocab_size": 49_152,
}


def test_a_plan_for_three_billion_parameters_costs_more_than_one_for_135_million(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(memory_probes, "find_gpu", lambda: test_forecast.GPU)
    monkeypatch.setenv("FINETUNE_HOME", str(tmp_path))
    found = []
    for shape in (SMOLLM2_135M, STABLE_CODE_3B):
        monkeypatch.setattr(test_forecast, "SHAPE", {"model_type": "llama", **shape})
        found.append(forecast(test_forecast.session(tmp_path)))
    small, large = found
    assert large.seconds > 5 * small.seconds
    assert str(small) != str(large)
