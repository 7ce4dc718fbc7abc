"""The head of a model as the model applies it: hidden states -> logits, scaled or capped.

Models scale or cap their logits under many names (`logit_scale`, `lm_head_multiplier`,
`final_logit_softcapping` ...). Instead of a list of names, the model's own forward pass computes
the logits: it runs with its decoder replaced by one that returns given hidden states.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_LARGE = 200.0  # logits of the comparison: a cap at 30 or 50 changes them beyond any rounding
_TOLERANCE = 2e-3  # of the largest logit; rounding to bfloat16 changes a value by at most 2^-9


class GivenHidden:
    """A decoder's output that holds nothing but hidden states [1, n, hidden]."""

    def __init__(self, hidden: Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        # no cache, no attentions, no router logits


class OwnHead:
    """Logits of a model for hidden states.

    Args:
        model: A causal language model of transformers.
        decoder: The part of it that computes the hidden states.
    """

    def __init__(self, model: Any, decoder: Any) -> None:
        self._model, self._decoder = model, decoder

    @property
    def weight(self) -> Tensor:
        """[vocabulary, hidden]."""
        return self._model.get_output_embeddings().weight  # type: ignore[no-any-return]

    def __call__(self, hidden: Tensor) -> Tensor:
        """Logits [n, vocabulary] of hidden states [n, hidden]."""
        ids = torch.zeros(1, len(hidden), dtype=torch.int64, device=hidden.device)
        with _returning(self._decoder, GivenHidden(hidden[None])):
            return self._model(input_ids=ids, use_cache=False).logits[0]  # type: ignore[no-any-return]

    def is_linear(self) -> bool:
        """Whether the logits are the plain output of the head's linear layer."""
        layer = self._model.get_output_embeddings()
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            hidden = torch.randn(4, self.weight.shape[1], generator=generator)
            hidden = hidden.to(self.weight.device, self.weight.dtype)
            hidden = hidden * (_LARGE / layer(hidden).abs().max())
            expected = layer(hidden).float()
            difference = (self(hidden).float() - expected).abs().max()
        return bool(difference <= _TOLERANCE * expected.abs().max())


@contextmanager
def _returning(decoder: Any, output: GivenHidden) -> Iterator[None]:
    """Inside the block the decoder returns `output`."""
    before = decoder.__dict__.get("forward")  # an instance attribute where a library wrapped it
    decoder.forward = lambda *_, **__: output
    try:
        yield
    finally:
        del decoder.forward
        if before is not None:
            decoder.forward = before
