"""A family of decoder models as data: the architecture of a `model_type` in config.json.

The defaults are Llama's decoder layer, so an entry names only what differs from it. A new trait of
a layer is a new field, with Llama's value as its default.

The fast training path and the memory estimate read the table. Two things are not in it:

- GGUF hyper-parameters and tensor orders are in `tasks/merging/gguf/families`. This table is in the
  training's code digest, so any change of the export would retrain every model.
- Infilling tokens are in `tasks/core/text/special_tokens.py`. They belong to a tokenizer, not to an
  architecture: models of type llama alone use three different sets.

Standard library only, and nothing is computed at import: `finetune plan` reads the table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
class LayerNorms:
    """Names of a decoder layer's norms on the residual stream; "" for one that it has not.

    Attributes:
        attention: Of attention's input.
        attention_out: Of attention's output, before it is added to the residual stream.
        mlp: Of the MLP's input.
        mlp_out: Of the MLP's output.
    """

    attention: str = "input_layernorm"
    attention_out: str = ""
    mlp: str = "post_attention_layernorm"
    mlp_out: str = ""


@dataclass(frozen=True)
class DecoderLayer:
    """A decoder layer; linear layers that share an input form a group and run as one product.

    The MLP is gated if its first group has two outputs. Biases need no entry.

    Attributes:
        class_name: Its class in transformers. The fast path takes no other layer apart, as only the
            class tells the order of the operations.
        attention: Name of the attention's module.
        qkv: Projections of the attention's input.
        out: Projection of the attention's output.
        gate_up: Projections of the MLP's input.
        down: Projection of the MLP's output.
        norms: On the residual stream.
        norm_offset: What is added to the weights of RMSNorms.
        head_norms: Whether queries and keys have norms of their own before the rotation (per head,
            or over all heads, by the shape of their weight), or the field of the config that
            states it.
        activation: Field of the config: the MLP's activation.
        parallel: Whether the MLP reads the layer's input instead of attention's output, or the
            attribute of the layer that states it.
        parallel_norm: The norm of the MLP's input in that case.
        rotates: Whether layers rotate queries and keys, or the attribute of the attention that is
            false (or None) in those that do not.
        adjacent_pairs: The rotation pairs features 2 i and 2 i + 1 instead of halves of a head.
        rotation_by_type: The rotary embedding has another table for each type of layer.
        grouped_heads: The outputs of the common projection are q, k and v of the first head, then
            of the second, and so on, or the field of the config that is false in that case.
        window: Where the sliding window is: "layer" is an attribute of the attention, "config" a
            field of the config for all layers.
        attention_cap: Field of the config: soft cap of the attention's scores.
        branch_scale: Attribute of the layer: what attention and MLP are multiplied by before they
            are added to the residual stream.
    """

    class_name: str
    attention: str = "self_attn"
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
    norms: LayerNorms = LayerNorms()
    norm_offset: float = 0.0
    head_norms: bool | str = False
    activation: str = "hidden_act"
    parallel: bool | str = False
    parallel_norm: str = "input_layernorm"
    rotates: bool | str = True
    adjacent_pairs: bool = False
    rotation_by_type: bool = False
    grouped_heads: bool | str = False
    window: Literal["", "layer", "config"] = ""
    attention_cap: str = ""
    branch_scale: str = ""

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
        layers: Name of the decoder's list of layers.
        last_norm: Name of the norm before the head.
        positions: Name of the decoder's embedding of positions; "" without one.
        embedding_scale: Field of the config: what embedded tokens are multiplied by, where their
            module does not do that itself.
        logits_divisor: Field of the config: what logits are divided by.
        logits_factor: Field of the config: what logits are multiplied by.
        logits_cap: Field of the config: soft cap of logits.
        fields: Llama's name of a field of config.json -> the family's.
    """

    model_type: str
    layer: DecoderLayer
    layers: str = "layers"
    last_norm: str = "norm"
    positions: str = ""
    embedding_scale: str = ""
    logits_divisor: str = ""
    logits_factor: str = ""
    logits_cap: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
