"""Text generation: continuous batching, cached completions, one streamed answer."""
