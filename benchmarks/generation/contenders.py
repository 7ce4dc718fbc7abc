"""The ways to answer prompts that are measured beside each other, and the models they get."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

STABLE_LM, LLAMA = "StableLM", "Llama"
KINDS = (STABLE_LM, LLAMA)
OURS, PLAIN = "ours", "ours without recording"
SINGLE = "generate at batch 1"
PAGED, GRAPHS = "continuous batching", "continuous batching with graphs"
GIB = 2**30
Prompts = list[list[int]]
Answer = Callable[[], tuple[int, Sequence[Sequence[int]]]]


def tuned_model(small: bool, kind: str) -> Any:
    """A frozen base with an adapter that changes what it writes."""
    import torch

    from benchmarks.training import shape
    from tasks.core.models.packed_attention import register_packed_attention
    from tasks.training.lora import add_lora

    if small:
        from transformers import LlamaConfig, LlamaForCausalLM, StableLmConfig, StableLmForCausalLM

        register_packed_attention()
        torch.manual_seed(0)
        config = (LlamaConfig if kind == LLAMA else StableLmConfig)(
            vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=4, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        base: Any = (LlamaForCausalLM if kind == LLAMA else StableLmForCausalLM)(config).eval()
    else:
        base = shape.make_model("llama" if kind == LLAMA else "stablelm")
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


def answerer(given: argparse.Namespace, name: str, model: Any, prompts: Prompts) -> Answer:
    """A function that answers, and gives rows at once and what was written."""
    if name in (OURS, PLAIN):
        return ours(given, model, prompts, record=name == OURS)
    if name == SINGLE:
        return single(given, model, prompts[0])
    return paged(given, model, prompts, graphs=name == GRAPHS)


def ours(given: argparse.Namespace, model: Any, prompts: Prompts, record: bool) -> Answer:
    """The evaluation's own loop."""
    from tasks.evaluation.generation import generate
    from tasks.evaluation.generation.cuda_graph import DecodingStep

    steps: list[tuple[int, bool]] = []
    forward = DecodingStep.__call__

    def watched(self: DecodingStep, tokens: list[int], positions: list[int]) -> Any:
        steps.append((len(tokens), self.records))
        return forward(self, tokens, positions)

    def answer() -> tuple[int, Sequence[Sequence[int]]]:
        steps.clear()
        DecodingStep.__call__ = watched  # type: ignore[method-assign]
        try:
            found = generate.generate(
                model,
                prompts,
                max_new_tokens=given.new_tokens,
                batch=None,
                pad_id=0,
                stops=(),
                vram_gib=given.vram_gib,
                record=record,
            )
        finally:
            DecodingStep.__call__ = forward  # type: ignore[method-assign]
        recorded = sum(records for _, records in steps) / len(steps)
        rows = sorted({count for count, _ in steps})
        print(
            f"    {len(steps)} steps, {100 * recorded:.0f} % recorded, rows {rows}", file=sys.stderr
        )
        return rows[-1], [g.ids for g in found]

    return answer


def single(given: argparse.Namespace, model: Any, prompt: list[int]) -> Answer:
    """transformers' generate, part of one answer."""
    import torch
    from transformers import GenerationConfig

    few = min(given.new_tokens, given.single_tokens)
    greedy = GenerationConfig(
        max_new_tokens=few, do_sample=False, eos_token_id=None, pad_token_id=0
    )
    model.generation_config.eos_token_id = None
    model.get_base_model().generation_config.eos_token_id = None
    ids = torch.tensor([prompt], device="cpu" if given.small else "cuda")

    def answer() -> tuple[int, Sequence[Sequence[int]]]:
        with torch.inference_mode():
            out = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy
            )
        return 1, [out[0, len(prompt) :].tolist()]

    return answer


def paged(given: argparse.Namespace, model: Any, prompts: Prompts, graphs: bool) -> Answer:
    """transformers' continuous batching, its cache sized to the same cap, for a bounded time."""
    from transformers import GenerationConfig
    from transformers.generation import ContinuousBatchingConfig

    base = model.get_base_model()
    usual = base.config._attn_implementation
    greedy = GenerationConfig(
        max_new_tokens=given.new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )

    def answer() -> tuple[int, Sequence[Sequence[int]]]:
        base.set_attn_implementation("paged|sdpa")  # anything else asks the hub for kernels
        batching = ContinuousBatchingConfig(
            max_memory_percent=_share(given), max_batch_tokens=1024, use_cuda_graph=graphs or None
        )
        manager = base.init_continuous_batching(greedy, batching)
        manager.start()
        until = time.monotonic() + given.paged_s
        names = manager.add_requests(prompts, max_new_tokens=given.new_tokens)
        texts: dict[str, list[int]] = {}
        rows = 0
        while len(texts) < len(names) and time.monotonic() < until and manager.is_running():
            if (result := manager.get_result(timeout=0.5)) is not None:
                texts[result.request_id] = result.generated_tokens
            if manager.batch_processor is not None:
                rows = max(rows, len(manager.batch_processor.scheduler.active_requests))
        error = manager.background_thread_status.fatal_error
        manager.stop(timeout=10, hard_stop=True)  # hands out what is half written too
        while (result := manager.get_result(timeout=0.1)) is not None:
            texts[result.request_id] = result.generated_tokens
        base.set_attn_implementation(usual)
        if error is not None or not any(texts.values()):
            raise RuntimeError(f"its loop ended: {error}" if error else "no token was written")
        return rows, [texts[name] for name in names if texts.get(name)]

    return answer


def _share(given: argparse.Namespace) -> float:
    """What continuous batching may take for its cache, of the memory it believes to be free."""
    import torch

    from tasks.core.models.device import free_gpu

    if given.small:
        return 0.05
    free_gpu()
    free, total = torch.cuda.mem_get_info()
    held = torch.cuda.memory_reserved()
    # a gibibyte for activations, as far as the cap goes
    room = given.vram_gib * GIB - held - GIB
    return float(room / (total - max(total - free, held)))


def leave() -> None:
    """End the process, whatever threads of continuous batching still wait for."""
    sys.stderr.flush()
    os._exit(0)
