"""Mixtures of experts whose weights are stored fused: one parameter for all experts of a layer."""
