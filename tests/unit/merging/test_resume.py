import pytest
from safetensors.torch import save_file

from tasks.merging import candidates, safetensors_io
from tasks.merging.gguf import export
from tests.unit.merging.test_gguf_export import make_tokenizer

SMALL = {"strategy": "best", "max_shard_gib": 0.00005}  # six shards or so


class Killed(BaseException):
    pass


def counted(monkeypatch, kill_at=None):
    """Names of the shards written from here on; the process is killed while writing `kill_at`."""
    written = []

    def save(tensors, file, **options):
        if len(written) == kill_at:
            file.write_bytes(b"half")
            raise Killed
        written.append(file.stem)
        save_file(tensors, file, **options)

    monkeypatch.setattr(safetensors_io, "save_file", save)
    return written


def files(folder):
    return {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_finished_shard_is_not_written_twice_and_a_partial_one_is_completed(stage, monkeypatch):
    with monkeypatch.context() as patch:
        everything = counted(patch)
        stage.run(out="whole", **SMALL)
    with monkeypatch.context() as patch:
        before = counted(patch, kill_at=5)
        with pytest.raises(Killed):
            stage.run(out="killed", scratch="scratch", **SMALL)
    with monkeypatch.context() as patch:
        after = counted(patch)
        stage.run(scratch="scratch", **SMALL)
    assert len(before) == 5
    assert before + after == everything
    assert files(stage.model) == files(stage.root / "whole" / "model")


def test_finished_measurements_are_reused(stage, monkeypatch):
    def killed(*_, **__):
        raise Killed

    make_tokenizer(stage.root / "tokenizer")
    with monkeypatch.context() as patch:
        patch.setattr(export, "check_exportable", lambda *_: None)
        patch.setattr(export, "write", killed)
        with pytest.raises(Killed):
            stage.run(out="killed", scratch="scratch", gguf=["f16"], **SMALL)
        patch.setattr(export, "write", lambda *a, **_: a[2].write_bytes(b"gguf"))
        patch.setattr(candidates, "load_model", killed)
        written = counted(patch)
        stage.run(scratch="scratch", gguf=["f16"], **SMALL)
    assert written == []
    assert (stage.root / "out" / "gguf" / "model-f16.gguf").read_bytes() == b"gguf"
