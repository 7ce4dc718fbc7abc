"""What the performance claims rest on; one command each."""
