"""What the fast path trains: weights, LoRA and shapes of a model, as plain tensors."""
