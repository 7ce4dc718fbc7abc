"""Models: loading, packed samples, attention, loss, fused experts, and the memory that training needs."""
