"""Text generation: continuous batching for many prompts, cached completions, one streamed answer."""
