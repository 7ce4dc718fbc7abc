"""Base and tuned model loaded once: the base with an adapter that can be switched off."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from tasks.core.models.device import Device, DType, Quantization
from tasks.core.models.loading import attach_adapter, load_model
from tasks.core.models.packed_dataset import Window
from tasks.core.models.packing import join_rows
from tasks.core.models.pretrained import load_tokenizer
from tasks.core.models.trusted_code import is_trusted
from tasks.core.progress import report
from tasks.core.text import prompt_templates
from tasks.core.text.prompt_templates import Template
from tasks.core.text.row_encoder import RowEncoder
from tasks.evaluation import row_losses
from tasks.evaluation.ending_tokens import Endings
from tasks.evaluation.generation import generate
from tasks.evaluation.generation.continuous_batching import Generated
from tasks.evaluation.results import RowResult
from tasks.evaluation.timing import Clock

BASE, TUNED = "base", "tuned"


class ModelPair:
    """Both models and their tokenizer."""

    def __init__(self, model: Any, tokenizer: Any, vram_gib: float | None = None) -> None:
        self.model, self.tokenizer, self._vram_gib = model, tokenizer, vram_gib

    @classmethod
    def load(
        cls,
        weights: Path,
        tokenizer: Path,
        adapter: Path,
        *,
        quantization: Quantization = "nf4",
        device: Device = "auto",
        dtype: DType = "auto",
        vram_gib: float | None = None,
    ) -> "ModelPair":
        """Load the base once and attach the adapter."""
        model = load_model(
            weights,
            quantization=quantization,
            device=device,
            dtype=dtype,
            vram_gib=vram_gib,
            trust_remote_code=is_trusted(weights),
        )
        return cls(attach_adapter(model, adapter), load_tokenizer(tokenizer), vram_gib)

    def only(self, who: str) -> AbstractContextManager[Any]:
        """Inside the block the model is `BASE` or `TUNED`."""
        return self.model.disable_adapter() if who == BASE else nullcontext()

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens, without control tokens."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def endings(self, template: Template) -> Endings:
        """What ends an answer: the template's marker, the end of a turn in the base's chat
        template, and control tokens such as EOS."""
        encoder = RowEncoder(self.tokenizer)
        control = {*self.tokenizer.all_special_ids, *encoder.ends}
        end = prompt_templates.complete(template, "")
        texts = [] if "\0" in end else [end]  # a chat ends in control tokens
        return Endings(control, texts, lambda ids: str(self.tokenizer.decode(list(ids))))

    def losses(
        self,
        rows: Iterable[Window],
        *,
        endings: Endings,
        clusters: Mapping[str, str],
        label: str,
        total: int,
        window_tokens: int,
        clock: Clock,
    ) -> tuple[RowResult, ...]:
        """Losses and correct tokens of rows by both models.

        Args:
            rows: Read one at a time.
            endings: Finds the tokens that are measured apart from the content.
            clusters: Row id -> project.
            label: Of progress and cost.
            total: Tokens of all rows.
            window_tokens: Size of a window that rows are packed into.
            clock: Records the cost.
        """
        with clock.measure(f"loss, {label}", tokens=2 * total):
            return tuple(
                row_losses.measure(
                    self.model,
                    join_rows(rows, window_tokens),
                    clusters=clusters,
                    endings=endings,
                    byte_count=lambda ids: len(self.text(ids).encode("utf-8", "replace")),
                    done=lambda tokens: report(f"loss, {label}", tokens, total, "tokens"),
                )
            )

    def plain_rows(self, texts: Mapping[str, str], max_tokens: int) -> list[Window]:
        """Texts as rows of at most `max_tokens`; all tokens but the first are predicted."""
        encoded = generate.encode(self.tokenizer, list(texts.values()))
        return [
            row_losses.plain_row(name, ids[:max_tokens])
            for name, ids in zip(texts, encoded, strict=True)
        ]

    def answer_rows(self, texts: Mapping[str, tuple[str, str]]) -> list[Window]:
        """Prompts and completions as rows in which the completion and EOS are predicted."""
        prompts, answers = zip(*texts.values(), strict=True) if texts else ((), ())
        rows = RowEncoder(self.tokenizer).pairs(prompts, answers)
        return [
            row_losses.plain_row(name, row.ids, row.prompt_tokens)
            for name, row in zip(texts, rows, strict=True)
        ]

    def generate(
        self,
        who: str,
        prompts: Sequence[Sequence[int]],
        *,
        complete: Callable[[int, str], bool] | None = None,
        **options: Any,
    ) -> list[Generated]:
        """Answers of one of the two models.

        Args:
            who: `BASE` or `TUNED`.
            prompts: Token ids.
            complete: A stop rule: called with (index of the prompt, text so far).
            options: Others of `generate.generate`.
        """
        enough = None if complete is None else lambda i, ids: complete(i, self.text(ids))
        with self.only(who):
            return generate.generate(
                self.model,
                prompts,
                pad_id=self.tokenizer.pad_token_id or 0,
                vram_gib=self._vram_gib,
                complete=enough,
                **options,
            )
