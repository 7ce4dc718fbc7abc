"""What the worker processes of the data stages load: each of them takes that memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks.core.models.pretrained import read_tokenizer
from tasks.core.system.home import REPOSITORY
from tasks.core.text.bare_tokenizer import BareTokenizer

ENCODE = """
import pyarrow as pa
from tasks.tokenization.encode import COLUMNS, PromptBatch, encode_batch
row = dict.fromkeys(COLUMNS, "") | {"prompt": "a", "completion": "b"}
encode_batch(PromptBatch(FILE, "output", pa.Table.from_pylist([row])))
"""
WORKERS = {
    "ingest": "from tasks.ingestion.extract_code import _extract_batch",
    "filter": "from tasks.filtering.score_rows import score_rows",
    "prompt": "from tasks.prompting.decontaminate import search",
    "tokenize": ENCODE,
}


@pytest.mark.parametrize("stage", WORKERS)
def test_a_worker_process_loads_neither_torch_nor_transformers(
    stage: str, tiny_model: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tokenizer"
    BareTokenizer.of(read_tokenizer(tiny_model)).write(file)
    code = f"FILE = {str(file)!r}\n{WORKERS[stage]}\nimport sys\n"
    code += "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
