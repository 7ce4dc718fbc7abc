"""Peak memory and seconds of merging at the shape of stable-code-3b, beside PEFT's own merge.

    python -m benchmarks.merging [--layers 32] [--gguf f16 q8_0] [--folder F] [--only OURS|PEFT]

Random weights (see `benchmarks.random_model`), a random adapter on all linear layers, each
contender in a fresh process on the CPU (hide a GPU with CUDA_VISIBLE_DEVICES=""). A phase lasts
until the next one starts, so it includes loading what that one needs. Resident memory is shown
with and without the pages of mapped files, which the kernel can reclaim. Needs 30 GB of disk.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks import random_model
from tasks.core.system.parallel import worker_count

OURS, PEFT = "ours", "peft"
RANK = 8
LAYERS = {
    "self_attn.q_proj": ("hidden_size", "hidden_size"),
    "self_attn.k_proj": ("hidden_size", "hidden_size"),
    "self_attn.v_proj": ("hidden_size", "hidden_size"),
    "self_attn.o_proj": ("hidden_size", "hidden_size"),
    "mlp.gate_proj": ("hidden_size", "intermediate_size"),
    "mlp.up_proj": ("hidden_size", "intermediate_size"),
    "mlp.down_proj": ("intermediate_size", "hidden_size"),
}
GIB = 2**30


class Watch:
    """Samples this process's memory while it works."""

    def __init__(self) -> None:
        self.phase = "start"
        self.phases: dict[str, list[float]] = {}  # start, CPU at start, seconds, CPU seconds, GiB
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._start = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.seconds = time.perf_counter() - self._start

    def _run(self) -> None:
        while not self._done.wait(0.02):
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon"):
                    now = time.perf_counter(), time.process_time()
                    seen = self.phases.setdefault(self.phase, [*now, 0.0, 0.0, 0.0])
                    seen[2:4] = (now[0] - seen[0], now[1] - seen[1])
                    seen[4] = max(seen[4], 1024 * int(line.split()[1]) / GIB)

    def update(self, label: str, done: float, total: float | None, note: str) -> None:
        """As a progress sink, use the labels as names of the phases."""
        self.phase = label

    def message(self, text: str) -> None:
        """Nothing."""

    def result(self) -> dict[str, Any]:
        """GiB and seconds."""
        return {
            "seconds": self.seconds,
            "cpu": time.process_time(),
            "phases": {name: seen[2:] for name, seen in self.phases.items()},
            "anonymous": max(seen[4] for seen in self.phases.values()),
            "resident": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / GIB,
        }


def main() -> None:
    """Prepare the inputs, run each contender, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--layers", type=int, default=32)
    options.add_argument("--gguf", nargs="*", default=[])
    options.add_argument("--folder", type=Path)
    options.add_argument("--only", choices=(OURS, PEFT))
    options.add_argument("--contender", choices=("prepare", OURS, PEFT), help=argparse.SUPPRESS)
    given = options.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="finetune-merge-"))
    if given.contender == "prepare":
        return prepare(folder, given.layers)
    if given.contender:
        from tasks.core import progress

        with Watch() as watch, progress.sink(watch):
            note = ours(folder, given.gguf) if given.contender == OURS else peft(folder)
        print(json.dumps({**watch.result(), "note": note}))
        return None
    began = time.perf_counter()
    call("prepare", folder, given.layers, given.gguf)
    prepared = time.perf_counter() - began
    size = sum(f.stat().st_size for f in (folder / "weights").glob("*.safetensors")) / GIB
    print(f"\n{given.layers} layers, {size:.2f} GiB in 16 bit, {worker_count(0)} cores")
    print(f"prepared in {prepared:.0f} s\n")
    print("| merge | seconds | CPU seconds | peak resident GiB | of it not file pages | result |")
    print("|---|--:|--:|--:|--:|---|")
    phases = {}
    for contender in (given.only,) if given.only else (OURS, PEFT):
        found = call(contender, folder, given.layers, given.gguf)
        numbers = f"{found['seconds']:.0f} | {found['cpu']:.0f} | {found['resident']:.2f}"
        numbers += f" | {found['anonymous']:.2f}"
        print(f"| {contender} | {numbers} | {found['note']} |", flush=True)
        phases[contender] = found["phases"]
    for contender, seen in phases.items():
        for name, (seconds, cpu, peak) in seen.items():
            print(
                f"    {contender}: {name:<28}{seconds:>6.0f} s {cpu:>6.0f} CPU s {peak:>7.2f} GiB"
            )
    return None


def call(contender: str, folder: Path, layers: int, gguf: list[str]) -> dict[str, Any]:
    """Run one part in its own process and return the JSON that it prints last."""
    command = [sys.executable, "-m", "benchmarks.merging", "--contender", contender]
    command += ["--folder", str(folder), "--layers", str(layers), "--gguf", *gguf]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1]) if done.stdout.strip() else {}


def prepare(folder: Path, layers: int) -> None:
    """Everything that the stage `merge` reads."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch
    from safetensors.torch import save_file

    from tasks.core.rows import row_schema
    from tasks.core.rows.data_card import DataCard

    shape = random_model.SHAPE | {"num_hidden_layers": layers}
    random_model.make(folder / "weights", shape)
    (folder / "tokenizer").mkdir(exist_ok=True)
    for file in (folder / "weights").glob("tokenizer*"):  # apart from the weights, as in `base`
        shutil.copyfile(file, folder / "tokenizer" / file.name)
    torch.manual_seed(1)
    tensors, adapter = {}, folder / "adapter"
    for layer in range(layers):
        for name, (inner, outer) in LAYERS.items():
            module = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{module}.lora_A.weight"] = 0.01 * torch.randn(RANK, int(shape[inner]))
            tensors[f"{module}.lora_B.weight"] = 0.01 * torch.randn(int(shape[outer]), RANK)
    adapter.mkdir(exist_ok=True)
    save_file(tensors, adapter / "adapter_model.safetensors")
    targets = [name.partition(".")[2] for name in LAYERS]
    settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 32}
    write(adapter / "adapter_config.json", settings | {"target_modules": targets})
    test = folder / "test"
    test.mkdir(exist_ok=True)
    rows = [
        {"row_id": f"{i:032x}", "input_ids": list(range(9, 73)), "prompt_tokens": 8}
        for i in range(4)
    ]
    plan = [{"window": i, "rows": [i], "tokens": 64} for i in range(4)]
    pq.write_table(pa.Table.from_pylist(rows, schema=row_schema.TOKENS), test / "rows.parquet")
    pq.write_table(pa.Table.from_pylist(plan, schema=row_schema.WINDOWS), test / "windows.parquet")
    write(folder / "gate.json", {"verdict": "improved", "reasons": [], "comparisons": []})
    write(folder / "metrics.json", {})
    write(folder / "steps.json", {"step": 1, "tokens": 1, "validation": []})
    DataCard().write(folder / "data_card.json")
    write(folder / "licence.json", {"base": "random", "licence": "Apache-2.0", "files": {}})


def write(path: Path, content: object) -> None:
    """Write JSON."""
    path.write_text(json.dumps(content), encoding="utf-8")


def ours(folder: Path, gguf: list[str]) -> str:
    """The stage with both strategies, measured."""
    from tasks.core.settings.config import View, check
    from tasks.core.stage import Work
    from tasks.merging import STAGE

    merge = {"tolerance_percent": 100, "min_agreement": 0, "sample_tokens": 128, "gguf": gguf}
    config = check({"merge": merge, "hardware": {"device": "cpu"}})
    inputs = {
        "train.adapter": folder / "adapter",
        "base.weights": folder / "weights",
        "base.tokenizer": folder / "tokenizer",
        "base.licence": folder / "licence.json",
        "evaluate.gate": folder / "gate.json",
        "evaluate.metrics": folder / "metrics.json",
        "tokenize.test": folder / "test",
        "tokenize.data_card": folder / "data_card.json",
        "train.steps": folder / "steps.json",
    }
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Work(Path(temporary) / "out", Path(temporary) / "scratch")
        work.out.mkdir()
        return STAGE.load_run()(View(config, STAGE.reads, STAGE.name), inputs, work).line


def peft(folder: Path) -> str:
    """PEFT's merge_and_unload of the whole 16-bit model, without a measurement."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder / "weights", dtype=torch.bfloat16)
    merged = PeftModel.from_pretrained(model, folder / "adapter").merge_and_unload()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        merged.save_pretrained(temporary, max_shard_size="2GB")
    return "merged and saved, not measured"


if __name__ == "__main__":
    main()
