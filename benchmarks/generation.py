"""Time and memory of answering 164 problems with base and tuned model, beside transformers.

    python -m benchmarks.generation [--vram-gib 9] [--only NAME ...] [--small]

The exact shape of stable-code-3b with random NF4 weights and a rank-8 adapter on every linear
layer; prompts as long as HumanEval's; each answer 256 tokens, as random weights never stop. Every
contender runs in a process of its own under an allocator cap: the evaluation's own `generate`
(with steps recorded, and without), transformers' continuous batching, and transformers' plain
`generate` one prompt at a time; these two are run for few prompts and scaled up. `--small` runs all
of it on a CPU with a tiny model, to see that it works.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

OURS, PLAIN, PAGED, SINGLE = (
    "ours",
    "ours, not recorded",
    "continuous batching",
    "generate, batch 1",
)
CONTENDERS = (OURS, PLAIN, PAGED, SINGLE)
LIMIT_S = {PAGED: 90}
LONGEST_S = 170
SINGLE_PROMPTS = 1
PAGED_PROMPTS, PAGED_TOKENS = 40, 64
GIB = 2**30
Prompts = list[list[int]]


def main() -> None:
    """Let each contender run, print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--vram-gib", type=float, default=9.0)
    options.add_argument("--problems", type=int, default=164)
    options.add_argument("--new-tokens", type=int, default=256)
    options.add_argument("--only", nargs="*", choices=CONTENDERS, default=(OURS, PAGED, SINGLE))
    options.add_argument("--small", action="store_true")
    options.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.contender:
        print(json.dumps(measure(given)))
        return
    print(f"{given.problems} problems x {given.new_tokens} new tokens, base and tuned, ", end="")
    print(f"allocator capped at {given.vram_gib} GiB\n")
    print("| how | base s | tuned s | tokens/s | peak reserved GiB | rows | note |")
    print("|---|--:|--:|--:|--:|--:|---|", flush=True)
    for contender in given.only:
        found = call(contender)
        if "base" not in found:
            print(f"| {contender} | | | | | | {found['note']} |", flush=True)
            continue
        rate = 2 * given.problems * given.new_tokens / (found["base"] + found["tuned"])
        print(
            f"| {contender} | {found['base']:.1f} | {found['tuned']:.1f} | {rate:,.0f} "
            f"| {found['peak']:.2f} | {found['rows']} | {found['note']} |",
            flush=True,
        )
        print(f"    {found['device']}; first tokens {found['first']}", file=sys.stderr)
        print(f"    {found['told']}", file=sys.stderr)


def call(contender: str) -> dict[str, Any]:
    """Run one contender with this command's arguments; what it printed last."""
    limit_s = LIMIT_S.get(contender, LONGEST_S)
    command = [sys.executable, "-m", "benchmarks.generation", *sys.argv[1:]]
    try:
        done = subprocess.run(
            [*command, "--contender", contender],
            capture_output=True,
            text=True,
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"note": f"not done after {limit_s} s"}
    if done.returncode or not done.stdout.strip():
        print(done.stderr[-3000:], file=sys.stderr)
        return {"note": "failed: " + (done.stderr.strip().splitlines() or ["no word"])[-1][:120]}
    told = [line for line in done.stderr.splitlines() if " recorded, rows " in line]
    return {**json.loads(done.stdout.splitlines()[-1]), "told": "; ".join(told)}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Seconds of base and tuned, and the peak, of one contender."""
    import torch

    from tasks.core.modeling import limit_memory, peak_vram_gib, reset_peak

    device = torch.device("cpu" if given.small else "cuda")
    limit_memory(device, given.vram_gib)
    model = tuned_model(given.small, given.contender == PAGED)
    prompts = make_prompts(given.problems, int(model.config.vocab_size))
    answer, note = answerer(given, model, prompts)
    reset_peak()
    seconds: dict[str, float] = {}
    first: list[list[int]] = []
    for who in ("base", "tuned"):
        with model.disable_adapter() if who == "base" else nullcontext():
            start = time.perf_counter()
            rows, texts = answer()
            written = sum(map(len, texts))
            wanted = given.problems * given.new_tokens
            seconds[who] = (time.perf_counter() - start) * wanted / written
        assert len({len(text) for text in texts}) == 1, [len(text) for text in texts]
        first.append(texts[0][:8])
    return {
        **seconds,
        "peak": peak_vram_gib(),
        "rows": rows,
        "note": note,
        "first": first,
        "device": f"{torch.cuda.get_device_name() if not given.small else 'CPU'}, "
        f"torch {torch.__version__}, transformers {__import__('transformers').__version__}",
    }


def tuned_model(small: bool, llama: bool) -> Any:
    """A frozen base with an adapter that changes what it writes.

    transformers' continuous batching does not know StableLM (its attention takes no paged cache):
    it gets a Llama of the same size.
    """
    import torch

    from benchmarks.training import shape
    from tasks.core.attention import register_packed_attention
    from tasks.training.lora import add_lora

    if small:
        from transformers import LlamaConfig, LlamaForCausalLM, StableLmConfig, StableLmForCausalLM

        register_packed_attention()
        torch.manual_seed(0)
        kind = LlamaConfig if llama else StableLmConfig
        config = kind(
            vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        base: Any = (LlamaForCausalLM if llama else StableLmForCausalLM)(config).eval()
    else:
        base = shape.make_model("llama" if llama else "stablelm")
    tuned = add_lora(base, rank=8, alpha=32, dropout=0.05)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    return tuned.eval()


def make_prompts(count: int, vocabulary: int) -> Prompts:
    """Random tokens; lengths as HumanEval's prompts have them in the training's format."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(170), 0.42, count), 60, 420).astype(int)
    return [rng.integers(9, vocabulary, n).tolist() for n in lengths]


Answer = Callable[[], tuple[int, Sequence[Sequence[int]]]]


def answerer(given: argparse.Namespace, model: Any, prompts: Prompts) -> tuple[Answer, str]:
    """A function that answers, and gives rows at once and answers; and a note."""
    if given.contender in (OURS, PLAIN):
        return ours(given, model, prompts)
    if given.contender == PAGED:
        return paged(given, model, prompts[:PAGED_PROMPTS])
    few = prompts[:SINGLE_PROMPTS]
    return single(given, model, few), f"{len(few)} prompt run, scaled up"


def ours(given: argparse.Namespace, model: Any, prompts: Prompts) -> tuple[Answer, str]:
    """The evaluation's own loop."""
    from tasks.evaluation import generation
    from tasks.evaluation.stepping import Step

    rows: list[int] = []
    recording: list[bool] = []
    forward = Step.__call__

    def watched(self: Step, tokens: list[int], positions: list[int]) -> Any:
        rows.append(len(tokens))
        recording.append(self.records)
        return forward(self, tokens, positions)

    Step.__call__ = watched  # type: ignore[method-assign]

    def answer() -> tuple[int, Sequence[Sequence[int]]]:
        found = generation.generate(
            model,
            prompts,
            max_new_tokens=given.new_tokens,
            batch=None,
            pad_id=0,
            stops=(),
            vram_gib=given.vram_gib,
            record=given.contender == OURS,
        )
        share = sum(recording) / len(recording)
        print(f"{len(rows)} steps, {share:.0%} recorded, rows {sorted(set(rows))}", file=sys.stderr)
        return max(rows), [g.ids for g in found]

    return answer, "batch by free memory"


def paged(given: argparse.Namespace, model: Any, prompts: Prompts) -> tuple[Answer, str]:
    """transformers' continuous batching, its cache sized to the same cap."""
    import torch
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    base = model.get_base_model()
    base.set_attn_implementation("paged|sdpa")  # anything else asks the hub for kernels
    share = 0.05
    if not given.small:
        free, total = torch.cuda.mem_get_info()
        used = max(total - free, torch.cuda.memory_reserved())
        # a gibibyte for activations and recorded steps, as far as the cap goes
        room = given.vram_gib * GIB - torch.cuda.memory_reserved() - GIB
        share = room / (total - used)
    new_tokens = min(given.new_tokens, PAGED_TOKENS)
    greedy = GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    batching = ContinuousBatchingConfig(max_memory_percent=share, max_batch_tokens=1024)

    def answer() -> tuple[int, Sequence[Sequence[int]]]:
        found = base.generate_batch(
            prompts, generation_config=greedy, continuous_batching_config=batching
        )
        texts = [
            found[name].generated_tokens
            for name in sorted(found, key=lambda n: int(n.rpartition("_")[2]))
        ]
        if len(texts) != len(prompts):
            raise RuntimeError(f"{len(texts)} of {len(prompts)} answers")
        return len(texts), texts

    of = f"{len(prompts)} prompts x {new_tokens} tokens run, scaled up"
    return answer, f"{of}; a Llama of the same size"


def single(given: argparse.Namespace, model: Any, prompts: Prompts) -> Answer:
    """transformers' generate, one prompt after another."""
    import torch
    from transformers import GenerationConfig

    greedy = GenerationConfig(
        max_new_tokens=given.new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    model.generation_config.eos_token_id = None
    model.get_base_model().generation_config.eos_token_id = None

    def answer() -> tuple[int, Sequence[Sequence[int]]]:
        texts = []
        for prompt in prompts:
            ids = torch.tensor([prompt], device="cpu" if given.small else "cuda")
            with torch.inference_mode():
                out = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy
                )
            texts.append(out[0, len(prompt) :].tolist())
        return 1, texts

    return answer


if __name__ == "__main__":
    main()
