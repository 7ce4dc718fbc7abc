"""Text generation for many prompts, and cached completions."""
