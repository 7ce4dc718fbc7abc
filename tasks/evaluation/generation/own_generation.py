"""Generation by transformers' own `generate`, one prompt at a time.

For models that `ContinuousBatch` can't run: those that cache more than keys and values (recurrent
states, convolutions), and those whose positions or masks do not allow padding. The picked token is
forced on `generate`, so that sampling, stop sequences and stop rules are those of the batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from tasks.core.models.packed_forward import base_model
from tasks.evaluation.generation.continuous_batching import Answers, Generated
from tasks.evaluation.generation.cuda_graph import DecodingStep
from tasks.evaluation.generation.kv_cache import KVCache, device_of

_PROMPTS = ((5, 3, 8, 6, 4), (7, 9, 5))  # of the comparison; the second is padded
_TOLERANCE = 0.1  # of the largest logit; an error of the cache makes about 1, rounding 0.02


class _PickToken(LogitsProcessor):  # type: ignore[misc]  # the library has no types
    """Picks the next token as the batch does, and leaves `generate` no other."""

    def __init__(self, answers: Answers, index: int, most: int) -> None:
        self.answers, self.index, self.most = answers, index, most
        self.generated: Generated | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        (token,) = self.answers.pick(scores, [self.index])
        self.generated = self.answers.add(self.index, token, self.most)
        forced = torch.full_like(scores, -torch.inf)
        forced[0, token] = 0
        return forced


class _AnswerFinished(StoppingCriteria):  # type: ignore[misc]  # the library has no types
    """Stops as soon as the answer is finished."""

    def __init__(self, picked: _PickToken) -> None:
        self.picked = picked

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:
        finished = self.picked.generated is not None
        return torch.full((len(input_ids),), finished, device=input_ids.device)


@torch.inference_mode()
def answer_one_by_one(
    model: Any,
    prompts: Sequence[Sequence[int]],
    waiting: Sequence[int],
    answers: Answers,
    max_new_tokens: int,
    finish: Callable[[int, Generated], None],
) -> None:
    """Answer the waiting prompts; arguments as of `ContinuousBatch`."""
    base = base_model(model)
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        use_cache=getattr(base, "caches", True),
        pad_token_id=0,
    )
    for index in waiting:
        ids = torch.tensor([list(prompts[index])], device=device_of(model))
        picked = _PickToken(answers, index, max_new_tokens)
        base.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=settings,
            logits_processor=LogitsProcessorList([picked]),
            stopping_criteria=StoppingCriteriaList([_AnswerFinished(picked)]),
        )
        assert picked.generated is not None  # at `max_new_tokens` every answer is finished
        finish(index, picked.generated)


def supports_batches(model: Any) -> bool:
    """Whether two prompts of different lengths, decoded together, have the logits of each alone.

    Tried once for each model, with the cache that the batch would use.
    """
    base = base_model(model)
    if not hasattr(base, "batches"):
        base.batches = getattr(base, "isolation", "") != "rows" and _batch_equals_single(model)
    return bool(base.batches)


@torch.inference_mode()
def _batch_equals_single(model: Any) -> bool:
    device = device_of(model)
    longest = max(map(len, _PROMPTS))
    ids = torch.zeros(len(_PROMPTS), longest, dtype=torch.int64, device=device)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(_PROMPTS):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    alone = [ids[row : row + 1, -len(prompt) :] for row, prompt in enumerate(_PROMPTS)]
    expected = torch.cat([model(input_ids=row).logits[:, -1] for row in alone]).float()
    try:
        cache = KVCache(model, len(_PROMPTS), longest + 1)
        cache.end_at(longest - 1)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        model(
            input_ids=ids[:, :-1],
            attention_mask=mask[:, :-1],
            position_ids=positions[:, :-1],
            past_key_values=cache.prefill(range(len(_PROMPTS)), mask[:, :-1]),
            use_cache=True,
            logits_to_keep=1,
        )
        last = [prompt[-1] for prompt in _PROMPTS]
        step = DecodingStep(model, cache, record=False)
        found = step(last, [len(prompt) - 1 for prompt in _PROMPTS])
        cache.free()
    except torch.OutOfMemoryError:
        raise
    except (
        Exception
    ):  # whatever the model's code raises with this cache, it can't decode in batches
        return False
    difference = (found.float() - expected).abs().max() / expected.abs().max()
    return bool(difference <= _TOLERANCE)
