"""What the claims about training speed and memory rest on."""
