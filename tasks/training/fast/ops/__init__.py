"""The operations of the fast path: in PyTorch, and as launches of Triton kernels."""
