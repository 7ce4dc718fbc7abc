"""Cached generation: completions of base and tuned model, generated only where not in the cache."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.core.progress import report
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import Template
from tasks.evaluation.generation import generate
from tasks.evaluation.generation.completion_cache import (
    GENERATION,
    LIBRARIES,
    LOADING,
    CompletionCache,
    key_of,
    maker,
)
from tasks.evaluation.generation.continuous_batching import Generated
from tasks.evaluation.generation.sampling import GREEDY, Sampling
from tasks.evaluation.model_pair import BASE, TUNED, ModelPair
from tasks.evaluation.results import Attempt, Attempts
from tasks.evaluation.timing import Clock


@dataclass(frozen=True)
class Decoding:
    """How texts are generated.

    Attributes:
        max_new_tokens: Limit of one answer.
        batch: Prompts continued together; None: as many as memory holds.
        stops: Token sequences that end an answer.
        marker: Text that ends an answer, however it is split into tokens; "" none.
        attempts: Answers to each prompt.
        sampling: How tokens are picked.
    """

    max_new_tokens: int
    batch: int | None
    stops: tuple[tuple[int, ...], ...]
    marker: str = ""
    attempts: int = 1
    sampling: Sampling = GREEDY

    @classmethod
    def of(
        cls, tokenizer: Any, template: Template, max_new_tokens: int, batch: int | None
    ) -> "Decoding":
        """One greedy answer, which ends at EOS and at the template's end marker."""
        stops = generate.stop_sequences(tokenizer, prompt_templates.stop_of(template))
        return cls(max_new_tokens, batch, stops, prompt_templates.end_of(template))


@dataclass(frozen=True)
class StopRule:
    """Ends an answer early, where the rest would be cut anyway.

    Attributes:
        reference: "module:function" that decides; its code enters the cache key.
        is_complete: Called with (index of the prompt, answer so far).
        tags: What else it depends on, for each prompt; enters the cache key. () nothing.
    """

    reference: str
    is_complete: Callable[[int, str], bool]
    tags: Sequence[str] = ()


class CachedGenerator:
    """Base and tuned model with their completion caches.

    Args:
        pair: Both models.
        clock: Records the costs.
        caches: By `BASE` and `TUNED`; None: nothing is cached.
    """

    def __init__(
        self, pair: ModelPair, clock: Clock, caches: Mapping[str, CompletionCache] | None = None
    ) -> None:
        self.pair, self.clock = pair, clock
        self.caches = caches or {who: CompletionCache(None) for who in (BASE, TUNED)}

    def complete(
        self, texts: Sequence[str], decoding: Decoding, label: str, rule: StopRule | None = None
    ) -> list[tuple[Attempts, Attempts]]:
        """Answers of base and tuned model to each text, `decoding.attempts` of each.

        Args:
            texts: Prompts.
            decoding: How.
            label: Of progress and cost.
            rule: Ends answers early.
        """
        prompts = generate.encode(self.pair.tokenizer, texts)
        base, tuned = (
            self._attempts(who, prompts, decoding, f"{label}, {who}", rule) for who in (BASE, TUNED)
        )
        return list(zip(base, tuned, strict=True))

    def _attempts(
        self,
        who: str,
        prompts: Sequence[list[int]],
        decoding: Decoding,
        title: str,
        rule: StopRule | None,
    ) -> list[Attempts]:
        cache, each = self.caches[who], decoding.attempts
        # the number of attempts changes none of them, so it is left out of the key
        how = {**asdict(decoding), "attempts": 0, "rule": maker(rule.reference) if rule else ""}
        made_by = [cache.model, maker(GENERATION, LIBRARIES), maker(LOADING)]
        wanted = [(i, n) for i in range(len(prompts)) for n in range(each)]
        tags = [{"tag": tag} for tag in rule.tags] if rule and rule.tags else [{}] * len(prompts)
        keys = [
            key_of(by=made_by, prompt=prompts[i], how=how, attempt=n, **tags[i]) for i, n in wanted
        ]
        found = {key: Generated(tuple(ids), *rest) for key, (ids, *rest) in cache.get(keys).items()}
        new = [at for at, key in enumerate(keys) if key not in found]
        before, tokens = len(wanted) - len(new), 0
        report(title, before, len(wanted))

        def done(index: int, written: Generated) -> None:
            nonlocal tokens
            key = keys[new[index]]
            tokens += written.tokens
            found[key] = written
            cache.put({key: [list(written.ids), written.tokens, written.stopped]})
            report(title, len(found), len(set(keys)), f"{tokens:,} tokens")

        cached = f" ({before:,} of {len(wanted):,} cached)" if before else ""
        with self.clock.measure(f"generation, {title}{cached}") as part:
            self.pair.generate(
                who,
                [prompts[wanted[at][0]] for at in new],
                max_new_tokens=decoding.max_new_tokens,
                batch=decoding.batch,
                stops=decoding.stops,
                sampling=decoding.sampling,
                # a draw depends on prompt and attempt, not on what else is generated
                names=[f"{key_of(prompt=prompts[wanted[at][0]])} {wanted[at][1]}" for at in new],
                complete=(lambda i, text: rule.is_complete(wanted[new[i]][0], text))
                if rule
                else None,
                done=done,
            )
            part.tokens = tokens
        attempts = [self._attempt(found[key], decoding.marker) for key in keys]
        return [tuple(attempts[i * each : (i + 1) * each]) for i in range(len(prompts))]

    def _attempt(self, written: Generated, marker: str) -> Attempt:
        """The text up to the marker, which may have been split into tokens that no stop lists."""
        text = self.pair.text(written.ids)
        kept = text.split(marker, 1)[0] if marker else text
        return Attempt(kept, written.tokens, stopped=written.stopped or len(kept) < len(text))
