"""Fast path: an optimizer step without autograd, on Triton kernels."""
