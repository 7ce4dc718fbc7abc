"""Models: loading, packed samples, attention, loss, experts, and the memory that training needs."""
