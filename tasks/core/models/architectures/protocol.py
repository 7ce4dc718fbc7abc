"""A family of decoder models as data: what its `model_type` in config.json stands for.

The defaults are Llama's decoder layer, so an entry names only what differs from it. A new trait of
a layer (the offset of a norm, an ungated MLP) is a new field, with Llama's value as its default.

The fast training path and the memory estimate read the table. Two things are not in it:

- GGUF hyper-parameters and tensor orders are in `tasks/merging/gguf/families`. This table is in the
  training's code digest, so any change of the export would retrain every model.
- Infilling tokens are in `tasks/core/text/special_tokens.py`. They belong to a tokenizer, not to an
  architecture: models of type llama alone use three different sets.

Standard library only, and nothing is computed at import: `finetune plan` reads the table.
"""

from dataclasses import dataclass
from typing import Literal

# features: of the residual stream, of the MLP, of all query heads, of all key (or value) heads, of
# q, k and v together, of gate and up together
Width = Literal["hidden", "inner", "queries", "keys", "qkv", "gate_up"]


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer of a decoder layer.

    Attributes:
        name: Last part of its module's path.
        inputs: Features that it reads.
        outputs: Features that it writes.
    """

    name: str
    inputs: Width
    outputs: Width


@dataclass(frozen=True)
class DecoderLayer:
    """A decoder layer; linear layers that share an input form a group and run as one product.

    Attributes:
        class_name: Its class in transformers. The fast path takes no other layer apart, as only the
            class tells the order of the operations.
        qkv: Projections of the attention's input.
        out: Projection of the attention's output.
        gate_up: Projections of the MLP's input.
        down: Projection of the MLP's output.
        head_norms: q_norm and k_norm normalize each head before the rotation.
        parallel: Attribute of the layer that is true if the MLP reads the layer's input, normalized
            as for attention, instead of attention's output.
        rotates: Attribute of the attention that is false in layers without rotation.
        branch_scale: Attribute of the layer: what attention and MLP are multiplied by before they
            are added to the residual stream.
        embedding_scale: Field of the config: what embedded tokens are multiplied by.
        logits_divisor: Field of the config: what logits are divided by.
    """

    class_name: str
    qkv: tuple[LinearLayer, ...] = (
        LinearLayer("q_proj", "hidden", "queries"),
        LinearLayer("k_proj", "hidden", "keys"),
        LinearLayer("v_proj", "hidden", "keys"),
    )
    out: tuple[LinearLayer, ...] = (LinearLayer("o_proj", "queries", "hidden"),)
    gate_up: tuple[LinearLayer, ...] = (
        LinearLayer("gate_proj", "hidden", "inner"),
        LinearLayer("up_proj", "hidden", "inner"),
    )
    down: tuple[LinearLayer, ...] = (LinearLayer("down_proj", "inner", "hidden"),)
    head_norms: bool = False
    parallel: str = ""
    rotates: str = ""
    branch_scale: str = ""
    embedding_scale: str = ""
    logits_divisor: str = ""

    @property
    def linear_layers(self) -> tuple[LinearLayer, ...]:
        """All linear layers in the order of the forward pass."""
        return (*self.qkv, *self.out, *self.gate_up, *self.down)


@dataclass(frozen=True)
class Architecture:
    """A family of models.

    Attributes:
        model_type: In config.json.
        layer: Its decoder layer.
    """

    model_type: str
    layer: DecoderLayer
