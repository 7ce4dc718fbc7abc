"""Fill-in-the-middle through all stages to an editor, with a base that has infilling tokens."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from flows.cli import main
from flows.delivery.delivered_model import find_model
from flows.delivery.openai_gateway import COMPLETIONS, with_training_format
from tasks.core.settings.config import View, check
from tasks.core.stage import Work
from tasks.core.text.special_tokens import PLACEHOLDER
from tasks.evaluation.completion.posed_span import BOTH, LEFT
from tasks.pipeline import PIPELINE
from tests.unit.cases import GOODS
from tests.unit.flows.conftest import FIM

NEW_TOKENS = 16


def module(good: str) -> str:
    """A module whose second function follows from its first."""
    return f'"""Stock of the {good}s."""\n' + "".join(
        f"\n\ndef {name}_{good}(count, stock):\n    total = stock.get({good!r}, 0)\n"
        f"    stock[{good!r}] = total {sign} count\n    return stock\n"
        for name, sign in (("add", "+"), ("remove", "-"))
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Path:
    """The folder of all stages' outputs for a small repository, with rows of `fill` alone."""
    import torch
    from tokenizers import AddedToken

    from tests.unit.merging.test_gguf_export import make_model, make_tokenizer

    root = tmp_path_factory.mktemp("fill")
    base = make_model(root / "model", intermediate_size=128, max_position_embeddings=512)
    make_tokenizer(base, added=[AddedToken(name, special=True) for name in FIM])
    (root / "code").mkdir()
    for good in GOODS:
        (root / "code" / f"{good}.py").write_text(module(good))
    source = {"kind": "folder", "path": str(root / "code"), "licence": "MIT", "rows": ["fill"]}
    source |= {"holes": 8, "window_characters": 300, "columns": {"project": "source"}}
    config = check(
        {
            "hardware": {"device": "cpu", "workers": 1},
            "base": {"path": str(base), "licence": "MIT"},
            "ingest": {"sources": [source]},
            "filter": {"decontamination": {"benchmarks": []}},
            "prompt": {"split": "file", "test_share": 0.3, "validation_share": 0.1},
            "tokenize": {"max_tokens": 512, "window_tokens": 512, "min_characters_per_token": 0},
            "train": {
                **{"max_steps": 8, "warmup_steps": 1, "learning_rate": 0.02, "batch_tokens": 1024},
                **{"lora_rank": 16, "validation_tokens": 500, "quantization": "none"},
            },
            "evaluate": {
                **{"humaneval_problems": 0, "probe_problems": 0, "samples": 0},
                **{"completion_spans": 3, "max_new_tokens": NEW_TOKENS, "max_test_tokens": 500},
                **{"quantization": "none", "dtype": "float32", "gate": {"resamples": 100}},
            },
            "merge": {"sample_tokens": 100, "quantization": "none"},
        }
    )
    torch.set_num_threads(1)
    paths: dict[str, Path] = {}
    for stage in PIPELINE:
        out = root / stage.name
        (out / "scratch").mkdir(parents=True)
        run, work = stage.load_run(), Work(out, out / "scratch")
        run(View(config, stage.reads, stage.name), paths, work)
        for output in stage.outputs:
            paths |= {f"{stage.name}.{output}": path for path in out.glob(f"{output}*")}
    return root


@pytest.fixture(scope="module")
def served(chain):
    """(prefix, suffix) -> the token ids that `serve-model` sends to its engine."""
    from transformers import AutoTokenizer

    model = find_model(str(chain / "merge"))
    tokenizer = AutoTokenizer.from_pretrained(model.folder)

    def ids(prefix, suffix):
        body = {"prompt": prefix, "suffix": suffix}
        made = with_training_format(COMPLETIONS, body, model.stop, model.infilling, None)
        return tokenizer(made["prompt"])["input_ids"]

    return ids


def with_suffix(chain):
    """(prefix, suffix, what the tuned model wrote) of the spans that the evaluation posed."""
    for row in pq.read_table(chain / "evaluate" / "completions.parquet").to_pylist():
        if (row["style"], row["model"]) == (BOTH, "tuned"):
            _, _, prefix, _, suffix, _, _ = PLACEHOLDER.split(row["prompt"])
            yield prefix, suffix, row["text"]


def test_rows_are_trained_as_an_editor_sends_them(chain, served):
    kept = pq.read_table(chain / "filter" / "kept.parquet").to_pylist()
    fills = {row["row_id"]: json.loads(row["conversation"])["fill"] for row in kept}
    trained = pq.read_table(chain / "tokenize" / "train" / "rows.parquet").to_pylist()
    as_sent = 0
    for row in trained:
        fill = fills[row["row_id"]]
        as_sent += row["input_ids"][: row["prompt_tokens"]] == served(
            fill["prefix"], fill["suffix"]
        )
    # the others show the suffix first: prompt.spm_share
    assert 0.3 * len(trained) < as_sent < 0.7 * len(trained)


def test_spans_are_evaluated_as_an_editor_sends_them(chain, served):
    from transformers import AutoTokenizer

    from tasks.evaluation.generation.generate import encode

    tokenizer = AutoTokenizer.from_pretrained(chain / "base" / "tokenizer")
    table = pq.read_table(chain / "evaluate" / "completions.parquet").to_pylist()
    posed = encode(tokenizer, [r["prompt"] for r in table if r["style"] == BOTH][::2])
    assert posed == [served(prefix, suffix) for prefix, suffix, _ in with_suffix(chain)] != []


def test_training_on_fill_alone_improves_completion_with_the_suffix(chain):
    measured = json.loads((chain / "evaluate" / "metrics.json").read_bytes())["completion"]
    assert measured.keys() == {LEFT, BOTH, "left_out"}
    bits = {who: measured[BOTH][who]["bits_per_byte"] for who in ("base", "tuned")}
    assert bits["tuned"] < bits["base"] / 2


def test_try_with_a_suffix_writes_what_the_evaluation_measured(chain, small_profile, capsys):
    prefix, suffix, text = next(with_suffix(chain))
    options = ["--from", str(chain / "merge"), "--profile", str(small_profile)]
    options += ["--suffix", suffix, "--max-new-tokens", str(NEW_TOKENS)]
    assert main(["try", prefix, *options]) == 0
    written = capsys.readouterr().out
    assert text and written.strip().startswith(text)
