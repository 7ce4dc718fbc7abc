"""All families that can be exported as GGUF."""

from tasks.merging.gguf.families.llama import LLAMA
from tasks.merging.gguf.families.stablelm import STABLELM

FAMILIES = (LLAMA, STABLELM)
