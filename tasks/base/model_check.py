"""Measures what a model's architecture supports, on a reduced model on the CPU.

Everything that would make a training wrong without an error, or fail after it, is tried here:
isolation of packed samples, causality, the head, generation with a cache, LoRA's reach. The result
is a `ModelTraits`, which training, evaluation and merging apply, or a `PipelineError`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tasks.base.lora_reach import TOLERANCE, experts_work, lora_reach
from tasks.base.reduced_model import build
from tasks.core.errors import PipelineError
from tasks.core.models.packed_attention import PACKED, register_packed_attention
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packed_forward import decoder_of, forward_hidden, window_tensors
from tasks.core.models.traits.model_traits import Isolation
from tasks.core.models.traits.own_head import OwnHead

LENGTHS = (21, 1, 13)  # of the samples; longer than the reduced windows
NEW_TOKENS = 6
OTHER_MODEL = "Choose a causal language model such as Llama, Qwen, StableLM, Mistral or Gemma."
CPU = torch.device("cpu")
# what the code of a model raises where it can't do something; not MemoryError and OSError, which
# say something about this machine and not about the model
MODEL_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class ArchitectureCheck:
    """What was measured.

    Attributes:
        attention: Implementation that equals the reference (eager).
        isolation: How packed samples are isolated.
        leak: Relative difference of hidden states, packed by a block mask against alone.
        linear_head: Whether the logits are the plain output of the head.
        cache: Whether generation with cache equals generation without.
        lora: Last names of linear layers that LoRA reaches.
        unreached: Last names of linear layers that it does not reach.
        experts: Whether fused experts can be computed in 4 bit and with LoRA; False without any.
    """

    attention: Literal["sdpa", "eager"]
    isolation: Isolation
    leak: float
    linear_head: bool
    cache: bool
    lora: tuple[str, ...]
    unreached: tuple[str, ...]
    experts: bool


class _CannotRunError(Exception):
    """A model does not run on token ids."""


def check_architecture(
    configs: Sequence[Any], trust_remote_code: bool = False
) -> ArchitectureCheck:
    """Measure a reduced model.

    Args:
        configs: Of reduced models; the first that runs is measured.
        trust_remote_code: Run the model's own code.

    Raises:
        PipelineError: It can't be trained correctly.
    """
    register_packed_attention()
    problem = ""
    with torch.random.fork_rng(devices=[]), _one_thread():
        for config in configs:
            try:
                return _measured(config, trust_remote_code)
            except _CannotRunError as error:
                problem = str(error)
    raise _rejected(configs[-1].model_type, f"does not run on token ids: {problem}")


def _measured(config: Any, trust_remote_code: bool) -> ArchitectureCheck:
    kind = config.model_type

    def make(attention: str) -> Any:
        return build(config, attention, trust_remote_code)

    try:
        samples = _samples(config.vocab_size)
        model = make("eager")
        alone = [_alone(model, ids) for ids in samples]
    except Exception as error:  # whatever a model's code raises, it can't be trained
        raise _CannotRunError(_first_line(error)) from error
    _check_causal(model, samples[0], alone[0], kind)
    truth = torch.cat(alone)
    attention = _attention(make, samples, truth)
    leak, isolation = _isolation(make, attention, samples, truth)
    linear = _head(model, samples[0], alone[0], kind)
    cache = _cache_works(model, samples[0])
    lora, unreached = lora_reach(model, samples[0])
    experts = experts_work(make("eager"), samples[0], alone[0])
    if not lora:
        kinds = sorted({type(m).__name__ for m in model.modules() if hasattr(m, "weight")})
        raise _rejected(
            kind, f"has 0 linear layers that LoRA can train (it has {', '.join(kinds)})"
        )
    return ArchitectureCheck(attention, isolation, leak, linear, cache, lora, unreached, experts)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread: the products are so small that waiting for others takes longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _samples(vocabulary: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    first = min(3, vocabulary - 2)
    return [torch.randint(first, vocabulary, (1, n), generator=generator) for n in LENGTHS]


@torch.no_grad()
def _alone(model: Any, ids: Tensor) -> Tensor:
    output = decoder_of(model)(input_ids=ids, use_cache=False)
    hidden: Tensor = output.last_hidden_state[0]
    if not torch.isfinite(hidden).all():
        raise ValueError("its hidden states are not finite")
    return hidden


def _difference(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def _check_causal(model: Any, ids: Tensor, hidden: Tensor, kind: str) -> None:
    half = ids.shape[1] // 2
    if _difference(_alone(model, ids[:, :half]), hidden[:half]) > TOLERANCE:
        raise _rejected(kind, "is not causal: its tokens depend on later ones")


def _attention(
    make: Callable[[str], Any], samples: list[Tensor], truth: Tensor
) -> Literal["sdpa", "eager"]:
    """PyTorch's attention where the model supports it and computes the same with it."""
    try:
        model = make("sdpa")
        found = torch.cat([_alone(model, ids) for ids in samples])
    except (ValueError, ImportError, RuntimeError):
        return "eager"
    return "sdpa" if _difference(found, truth) < TOLERANCE else "eager"


def _isolation(
    make: Callable[[str], Any], attention: str, samples: list[Tensor], truth: Tensor
) -> tuple[float, Isolation]:
    """Join the samples in one window, with each way of isolating them."""
    window = window_tensors(_joined(samples), CPU)

    def leak(packed: bool) -> float:
        try:
            model = make(attention)
            if packed:
                model.set_attn_implementation(PACKED)
            with torch.no_grad():
                return _difference(forward_hidden(model, window), truth)
        except MODEL_ERRORS:  # this way does not isolate
            return float("inf")

    by_mask = leak(packed=False)
    if by_mask > TOLERANCE:
        return by_mask, "rows"
    return by_mask, "varlen" if leak(packed=True) < TOLERANCE else "mask"


def _joined(samples: list[Tensor]) -> Window:
    ids = torch.cat(samples, 1)[0].numpy()
    bounds = np.cumsum([0, *LENGTHS]).astype(np.int32)
    positions = np.concatenate([np.arange(n) for n in LENGTHS])
    return Window(ids, ids.copy(), positions, bounds, tuple(map(str, LENGTHS)))


def _head(model: Any, ids: Tensor, hidden: Tensor, kind: str) -> bool:
    """Whether the head is linear; raises if the model's own head can't be run alone."""
    head = OwnHead(model, decoder_of(model))
    try:
        with torch.no_grad():
            difference = _difference(head(hidden), model(input_ids=ids, use_cache=False).logits[0])
        linear = head.is_linear()
    except Exception as error:  # whatever the model's code raises: its head can't be used
        raise _rejected(kind, f"has a head that can't run alone: {_first_line(error)}") from error
    if difference > TOLERANCE:
        raise _rejected(
            kind,
            f"has logits that differ from the output of its head (difference {difference:.1e})",
        )
    return linear


def _cache_works(model: Any, ids: Tensor) -> bool:
    """Whether greedy tokens and their logits are the same with and without the model's cache."""
    found = []
    for use_cache in (True, False):
        try:
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                use_cache=use_cache,
                max_new_tokens=NEW_TOKENS,
                min_new_tokens=NEW_TOKENS,
                do_sample=False,
                pad_token_id=0,
                return_dict_in_generate=True,
                output_logits=True,
            )
        except MODEL_ERRORS:
            if not use_cache:
                raise
            return False
        found.append(torch.cat(output.logits))
    return found[0].shape == found[1].shape and _difference(*found) < TOLERANCE


def _rejected(kind: str, problem: str) -> PipelineError:
    return PipelineError(f"the base model (type {kind}) {problem}", OTHER_MODEL)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0][:160]}" if text else type(error).__name__
