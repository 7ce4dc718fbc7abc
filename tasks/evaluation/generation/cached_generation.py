"""Both models at work: texts are looked up in their memories first, what is new is generated."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tasks.core.progress import report
from tasks.core.text import prompt_templates
from tasks.core.text.special_tokens import mark
from tasks.evaluation.generation import generate
from tasks.evaluation.generation.completion_cache import (
    GENERATION,
    LIBRARIES,
    LOADING,
    Memory,
    from_plain,
    key_of,
    maker,
    to_plain,
)
from tasks.evaluation.generation.continuous_batching import Generated
from tasks.evaluation.generation.sampling import GREEDY, Sampling
from tasks.evaluation.model_pair import BASE, TUNED, Pair
from tasks.evaluation.problems.grading import Memories
from tasks.evaluation.results import Attempt
from tasks.evaluation.timing import Clock


@dataclass(frozen=True)
class Decoding:
    """How texts are generated.

    Attributes:
        max_new_tokens: Tokens to write at most.
        batch: Prompts continued together; None: as many as memory holds.
        stops: Token sequences that end an answer.
        marker: Text that ends an answer, however it is cut into tokens; "" none.
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
        cls, tokenizer: Any, template: str, max_new_tokens: int, batch: int | None
    ) -> "Decoding":
        """One greedy answer, which ends at EOS and where the template says that it does."""
        end = mark("end") if template == "chat" else prompt_templates.end_of(template)
        stops = generate.stop_sequences(tokenizer, end)
        return cls(max_new_tokens, batch, stops, "" if template == "chat" else end)


class Writers:
    """Base and tuned model at work.

    Attributes:
        pair: Both models.
        memories: What each has written before.
        clock: Takes the costs.
    """

    def __init__(self, pair: Pair, clock: Clock, memories: Memories | None = None) -> None:
        self.pair, self.clock = pair, clock
        self.memories = memories or {who: Memory(None) for who in (BASE, TUNED)}

    def write(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        label: str,
        complete: Callable[[int, str], bool] | None = None,
        rule: str = "",
    ) -> tuple[list[tuple[Attempt, ...]], list[tuple[Attempt, ...]]]:
        """What base and tuned model write after each text, `decoding.attempts` times.

        Args:
            texts: Prompts.
            decoding: How.
            label: Of progress and cost.
            complete: Asked with (index of the text, answer so far): is this enough?
            rule: "module:function" that `complete` asks, for the memory; "" none.
        """
        prompts = generate.encode(self.pair.tokenizer, texts)
        base, tuned = (
            self._answers(who, prompts, decoding, f"{label}, {who}", complete, rule)
            for who in (BASE, TUNED)
        )
        return base, tuned

    def _answers(
        self,
        who: str,
        prompts: Sequence[list[int]],
        decoding: Decoding,
        title: str,
        complete: Callable[[int, str], bool] | None,
        rule: str,
    ) -> list[tuple[Attempt, ...]]:
        memory, each = self.memories[who], decoding.attempts
        how = {**asdict(decoding), "attempts": 0}  # how many there are changes none
        how["rule"] = maker(rule) if rule else ""
        made_by = [memory.model, maker(GENERATION, LIBRARIES), maker(LOADING)]
        wanted = [(i, n) for i in range(len(prompts)) for n in range(each)]
        keys = [key_of(by=made_by, prompt=prompts[i], how=how, attempt=n) for i, n in wanted]
        found = {key: from_plain(raw) for key, raw in memory.get(keys).items()}
        new = [at for at, key in enumerate(keys) if key not in found]
        before, tokens = len(wanted) - len(new), 0
        report(title, before, len(wanted))

        def done(index: int, written: Generated) -> None:
            nonlocal tokens
            tokens += written.tokens
            found[keys[new[index]]] = written
            memory.put({keys[new[index]]: to_plain(written)})
            report(title, len(found), len(set(keys)), f"{tokens:,} tokens")

        again = f" ({before:,} of {len(wanted):,} remembered)" if before else ""
        with self.clock.measure(f"generation, {title}{again}") as part:
            self.pair.generate(
                who,
                [prompts[wanted[at][0]] for at in new],
                max_new_tokens=decoding.max_new_tokens,
                batch=decoding.batch,
                stops=decoding.stops,
                sampling=decoding.sampling,
                names=[f"{key_of(prompt=prompts[wanted[at][0]])} {wanted[at][1]}" for at in new],
                complete=complete and (lambda index, text: complete(wanted[new[index]][0], text)),
                done=done,
            )
            part.tokens = tokens
        attempts = [self._attempt(found[key], decoding.marker) for key in keys]
        return [tuple(attempts[i * each : (i + 1) * each]) for i in range(len(prompts))]

    def _attempt(self, written: Generated, marker: str) -> Attempt:
        """The marker may have come in other tokens than expected; it ends the answer all the
        same."""
        text = self.pair.text(written.ids)
        kept = until(marker, text)
        return Attempt(kept, written.tokens, stopped=written.stopped or len(kept) < len(text))


def until(marker: str, text: str) -> str:
    """Text before the end marker; all of it where there is none."""
    return text.split(marker, 1)[0] if marker else text
