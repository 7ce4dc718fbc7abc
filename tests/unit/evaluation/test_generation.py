"""Greedy text: what plain greedy decoding gives, in batches, ended by whole sequences."""

from typing import Any

import pytest
import torch
from transformers import StableLmConfig, StableLmForCausalLM

from benchmarks import random_model
from tasks.core.errors import PipelineError
from tasks.evaluation.generation import (
    continuous_batching,
    kv_cache,
)
from tasks.evaluation.generation import (
    generate as generation,
)
from tasks.evaluation.generation import (
    sampling as sampling_,
)
from tasks.evaluation.generation.generate import generate
from tasks.evaluation.model_pair import BASE, TUNED, ModelPair

PROMPTS = [[5, 6, 7], [9], [3, 4, 5, 6, 7, 8, 9, 10], [11, 12], [20, 21, 22, 23]]


def run(pair: ModelPair, prompts: Any = PROMPTS, new: int = 8, batch: int = 2, **more: Any) -> Any:
    settings = {"stops": (), "pad_id": 0} | more
    return generate(pair.model, prompts, max_new_tokens=new, batch=batch, **settings)


def naive(pair: ModelPair, prompt: list[int], new: int) -> tuple[int, ...]:
    """The whole text through the model again for every token."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(new):
            ids.append(int(pair.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_padding_and_cache_change_no_token(pair: ModelPair, batch: int) -> None:
    found = run(pair, batch=batch)
    assert [g.ids for g in found] == [naive(pair, p, 8) for p in PROMPTS]


def test_answers_come_in_the_order_of_the_prompts(pair: ModelPair) -> None:
    assert run(pair, PROMPTS[::-1]) == run(pair)[::-1]


def test_it_is_the_same_twice(pair: ModelPair) -> None:
    assert run(pair) == run(pair)


def test_base_and_tuned_write_different_texts(pair: ModelPair) -> None:
    with pair.only(BASE):
        base = run(pair)
    with pair.only(TUNED):
        tuned = run(pair)
    assert base != tuned


def test_a_stop_sequence_ends_an_answer_and_is_left_out(pair: ModelPair) -> None:
    whole = run(pair)[0].ids
    stop = whole[3:5]
    first = next(i for i in range(len(whole)) if whole[i : i + 2] == stop)
    stopped = run(pair, stops=(stop,))[0]
    assert stopped == continuous_batching.Generated(whole[:first], first + 2, stopped=True)


def test_a_part_of_a_stop_sequence_ends_nothing(pair: ModelPair) -> None:
    whole = run(pair)[0].ids
    missing = next(t for t in range(320) if t not in whole)
    assert run(pair, stops=((whole[3], missing),))[0].ids == whole


def test_an_answer_at_the_limit_has_not_stopped(pair: ModelPair) -> None:
    found = run(pair, new=4)
    assert all(g.tokens == 4 and not g.stopped for g in found)


def test_one_that_ended_does_not_end_the_others(pair: ModelPair) -> None:
    plain = run(pair, batch=5)
    stop = (plain[0].ids[0],)
    found = run(pair, batch=5, stops=(stop,))
    assert found[0].tokens == 1
    assert any(g.tokens == 8 for g in found)


def test_a_caller_s_word_ends_an_answer_without_its_having_stopped(pair: ModelPair) -> None:
    found = run(pair, new=30, complete=lambda index, ids: index == 1)
    assert (found[1].tokens, found[1].stopped) == (8, False)
    assert found[0].tokens == 30


def test_the_marker_is_found_however_it_is_cut_into_tokens(pair: ModelPair) -> None:
    stops = generation.stop_sequences(pair.tokenizer, "### End")
    assert (pair.tokenizer.eos_token_id,) in stops
    for before in ("x\n\n", "return a + b\n\n", ""):
        ids = tuple(pair.tokenizer(before + "### End")["input_ids"])
        assert any(ids[-len(stop) :] == stop for stop in stops)


def test_a_control_token_s_name_in_a_prompt_stays_text(pair: ModelPair) -> None:
    (ids,) = generation.encode(pair.tokenizer, ["a<|endoftext|>"])
    assert pair.tokenizer.eos_token_id not in ids


def test_a_prompt_gets_the_very_tokens_of_the_training_data(pair: ModelPair, inputs: Any) -> None:
    import pyarrow.parquet as pq

    prompts = pq.read_table(inputs["prompt.test"])["prompt"].to_pylist()
    rows = pq.read_table(inputs["tokenize.test"] / "rows.parquet").to_pylist()
    wanted = [row["input_ids"][: row["prompt_tokens"]] for row in rows]
    assert generation.encode(pair.tokenizer, prompts) == wanted


def test_rows_that_end_at_different_times_hand_their_places_on(pair: ModelPair) -> None:
    lengths = [8, 40, 16, 96, 24]  # the cache is 64 columns wide at first, so rows must be moved
    found = run(pair, new=96, batch=2, complete=lambda i, ids: len(ids) >= lengths[i])
    assert [g.ids for g in found] == [
        naive(pair, p, n) for p, n in zip(PROMPTS, lengths, strict=True)
    ]


def test_with_room_for_more_rows_later_the_texts_are_the_same(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [[7] * 150, *PROMPTS, [8, 9]]
    rows = []
    # two rows of the long prompt's width, eight of the others'
    monkeypatch.setattr(generation, "room_tokens", lambda model, cap: (512, 99))
    whole = continuous_batching.KVCache.reshape

    def reshape(cache: Any, keep: Any, count: int, longest: int) -> None:
        rows.append(count)
        whole(cache, keep, count, longest)

    monkeypatch.setattr(continuous_batching.KVCache, "reshape", reshape)
    found = run(pair, prompts, new=20, batch=None)
    assert [g.ids for g in found] == [naive(pair, p, 20) for p in prompts]
    assert max(rows) > 2


def test_a_promise_of_memory_that_was_not_kept_costs_rows_and_no_answer(
    pair: ModelPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []
    step = continuous_batching.DecodingStep.__call__

    def full(self: Any, *arguments: Any) -> Any:
        tried.append(self._cache.rows)
        if self._cache.rows > 1:
            raise torch.OutOfMemoryError
        return step(self, *arguments)

    plain = run(pair)
    monkeypatch.setattr(continuous_batching.DecodingStep, "__call__", full)
    assert run(pair, batch=4) == plain
    assert tried[:3] == [4, 2, 1]


def test_no_room_for_one_row_is_said(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, *arguments: Any) -> Any:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(continuous_batching.DecodingStep, "__call__", full)
    with pytest.raises(PipelineError, match="no room for one text of 8 tokens and 8 new ones"):
        run(pair, batch=1)


def test_drawn_texts_hang_on_seed_and_name_and_not_on_the_batch(pair: ModelPair) -> None:
    sampling = sampling_.Sampling(temperature=1.0, seed=3)
    one, five = (run(pair, batch=n, sampling=sampling) for n in (1, 5))
    assert one == five
    assert one != run(pair, batch=1, sampling=sampling_.Sampling(temperature=1.0, seed=4))
    named = run(pair, [PROMPTS[0]] * 3, sampling=sampling, names=["a", "b", "a"])
    assert named[0] == named[2] != named[1]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log().repeat(4000, 1)
    picked = sampling_.Sampler(sampling_.Sampling(1.0), None)(logits, range(4000))
    shares = [picked.count(token) / 4000 for token in range(3)]
    assert shares == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    cut = sampling_.Sampler(sampling_.Sampling(1.0, top_p=0.6), None)(logits, range(4000))
    assert set(cut) == {0, 1}


def test_a_token_of_stable_code_3b_takes_320_kib() -> None:
    shape = StableLmConfig(**random_model.SHAPE, dtype=torch.bfloat16)
    with torch.device("meta"):
        model = StableLmForCausalLM(shape).to(torch.bfloat16)
    assert kv_cache.token_bytes(model) == 320 * 1024
