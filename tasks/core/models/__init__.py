"""Models: loading, packed samples, attention, loss, and the memory that training needs."""
