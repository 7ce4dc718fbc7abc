"""Memory and duration of a training, before it runs."""
