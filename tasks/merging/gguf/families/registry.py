"""All families that can be exported as GGUF."""

from tasks.merging.gguf.families.cohere import COHERE
from tasks.merging.gguf.families.gemma import GEMMA, GEMMA2, GEMMA3
from tasks.merging.gguf.families.gpt_neox import GPT_NEOX
from tasks.merging.gguf.families.llama import GRANITE, LLAMA, MISTRAL, MIXTRAL, SMOLLM3
from tasks.merging.gguf.families.olmo import OLMO2
from tasks.merging.gguf.families.phi import PHI, PHI3
from tasks.merging.gguf.families.qwen import QWEN2, QWEN3, QWEN3_MOE
from tasks.merging.gguf.families.stablelm import STABLELM
from tasks.merging.gguf.families.starcoder import GPT_BIGCODE, STARCODER2

FAMILIES = (
    *(LLAMA, MISTRAL, MIXTRAL, GRANITE, SMOLLM3),
    *(QWEN2, QWEN3, QWEN3_MOE),
    *(GEMMA, GEMMA2, GEMMA3),
    *(PHI, PHI3, OLMO2, GPT_BIGCODE, STARCODER2, GPT_NEOX, COHERE, STABLELM),
)
