"""GGUF export for llama.cpp and Ollama."""
