"""StableLM and Stable Code, which llama.cpp rotates as transformers does."""

from gguf import MODEL_ARCH

from tasks.merging.gguf.families.protocol import GgufFamily

STABLELM = GgufFamily(
    model_type="stablelm",
    architecture=MODEL_ARCH.STABLELM,
    parameters={
        "add_layer_norm_eps": "layer_norm_eps",
        "add_parallel_residual": "use_parallel_residual",
    },
    required={"hidden_act": ("silu",), "tie_word_embeddings": (False,)},
)
