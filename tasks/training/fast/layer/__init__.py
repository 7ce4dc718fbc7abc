"""Forward and backward pass of one decoder layer."""
