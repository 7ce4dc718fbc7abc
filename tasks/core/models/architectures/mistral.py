"""Mistral: Llama's layer; some configs set a sliding window."""

from tasks.core.models.architectures.protocol import Architecture, DecoderLayer

MISTRAL = Architecture("mistral", DecoderLayer("MistralDecoderLayer"))
