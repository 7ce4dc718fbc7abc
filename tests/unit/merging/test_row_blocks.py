"""Blocks and threads change no byte of a merged model or of its GGUF files."""

import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from tasks.merging import row_blocks
from tasks.merging.gguf.quantization import F16, F32, Q8, decode, encode
from tests.unit.merging.conftest import Stage, make_adapter
from tests.unit.merging.test_gguf_export import make_model, make_tokenizer


@pytest.mark.parametrize("options", [{}, {"use_dora": True}])
def test_blocks_and_threads_change_no_byte(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, options: dict[str, bool]
) -> None:
    make_model(stage.root / "weights", intermediate_size=128)
    make_tokenizer(stage.root / "tokenizer")
    make_adapter(stage.root / "weights", stage.root / "adapter", **options)
    written = []
    for out, values, threads in (("one", 1 << 40, 1), ("many", 200, 3)):
        monkeypatch.setattr(row_blocks, "BLOCK_VALUES", values)
        monkeypatch.setattr(row_blocks, "worker_count", lambda _, threads=threads: threads)
        stage.run(out, gguf=["f16", "q8_0"], max_shard_gib=0.0001)
        written.append(files(stage.root / out))
    assert written[0] == written[1]


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def test_blocks_cover_every_row_once() -> None:
    found = [i for b in row_blocks.row_blocks(1000, 1000) for i in range(1000)[b]]
    assert found == list(range(1000))
    assert [*row_blocks.row_blocks(2, 10**9)] == [slice(0, 1), slice(1, 2)]


def test_results_are_in_order_and_few_are_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_blocks, "worker_count", lambda _: 3)
    started, barrier = [], threading.Barrier(3)

    def work(i: int) -> int:
        started.append(i)
        barrier.wait(10)  # three threads are at work
        assert torch.get_num_threads() == 1
        return i

    before = torch.get_num_threads()
    for i, result in enumerate(row_blocks.in_order(work, range(9))):
        assert result == i
        assert len(started) <= i + 3
    assert torch.get_num_threads() == before


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(row_blocks.in_order(lambda i: 1 // i, [1, 0, 1, 1, 1]))


@pytest.mark.parametrize("kind", [F32, F16, Q8])
def test_encoding_gives_the_bytes_of_the_package_gguf(kind: gguf.GGMLQuantizationType) -> None:
    rows = torch.randn(50, 96)
    rows[1], rows[2], rows[3, 5:] = 0, 1e-40, 0
    rows[4] = torch.arange(96) - 47.5  # with a scale of 1 in the last block: halves
    rows[4, 64:] = torch.cat([torch.arange(31) + 0.5, torch.tensor([127.0])])
    rows[5] = -rows[4]
    rows[6] = torch.randn(96) * 500
    found = encode(rows, kind)
    with np.errstate(all="ignore"):
        expected = gguf.quantize(rows.numpy(), kind)
    np.testing.assert_array_equal(found, expected.view(np.uint8))
    np.testing.assert_array_equal(decode(expected, kind), gguf.dequantize(expected, kind))
