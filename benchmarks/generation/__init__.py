"""Time and memory of answering 164 problems with base and tuned model, beside transformers."""
